"""What collections there are, their configuration and aliases; every change is on disk before it is acknowledged."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from plinth.embedded import names
from plinth.embedded.conditions import path
from plinth.embedded.config import HNSW, Config
from plinth.embedded.configurations import AliasAction, AliasActions, NewIndex, check, check_change, check_creation
from plinth.embedded.engine_client import EngineProxy
from plinth.embedded.errors import MISTAKES, ApiError, invalid, malformed, missing_collection, refused
from plinth.embedded.schema import index, shard_config, single
from plinth.system.atomic_files import sync_directory, write_whole

ALIASES, DESCRIPTION, DELETED = "aliases.json", "collection.json", ".deleted-"
WAL = {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}

log = logging.getLogger("plinth.embedded")


class Catalogue:
    """The collections of a storage directory, each with its engine, each in a directory that :mod:`names` calls."""

    def __init__(self, config: Config) -> None:
        self.defaults = config
        # Beside, never among, the files of a real server that had this storage before.
        self.root = config.storage / "embedded"
        self.engines: dict[str, EngineProxy] = {}
        self.aliases: dict[str, str] = {}
        self._load()

    def resolve(self, name: str) -> str:
        """The physical collection behind a name or an alias."""
        found = self.aliases.get(name, name)
        if found not in self.engines:
            raise missing_collection(name)
        return found

    def engine(self, name: str) -> EngineProxy:
        """The engine behind a name or an alias."""
        return self.engines[self.resolve(name)]

    async def create(self, name: str, body: Any) -> None:
        """A new collection, whose engine is up when this returns; nothing is left of one that does not open."""
        self._check_new(name)
        engine = self.add(name, new_config(body, self.defaults), {})
        try:
            await engine.start()
        except BaseException:
            await self.delete(name)
            raise

    def _check_new(self, name: str) -> None:
        if name in self.engines:
            raise ApiError(409, f"Wrong input: Collection `{name}` already exists!")
        if name in self.aliases:
            raise ApiError(
                400, f"Wrong input: Can't create collection with name {name}. Alias with the same name already exists"
            )
        names.check_collection(name)

    def add(self, name: str, config: dict[str, Any], indexes: dict[str, Any]) -> EngineProxy:
        """Record a collection with its configuration."""
        self.save(name, config, indexes)
        sync_directory(self.root)
        engine = EngineProxy(self.directory(name), config, indexes)
        self.engines[name] = engine
        return engine

    async def delete(self, name: str) -> bool:
        """Drop a collection and its aliases; False when there is none."""
        engine = self.engines.pop(name, None)
        if engine is None:
            return False
        # The rename is the deletion: a crash later leaves only rubbish, which the next start removes.
        doomed = self.root / f"{DELETED}{names.directory(name)}"
        shutil.rmtree(doomed, ignore_errors=True)
        self.directory(name).rename(doomed)
        sync_directory(self.root)
        self.aliases = {alias: target for alias, target in self.aliases.items() if target != name}
        self._save_aliases()
        if engine.process is not None:
            engine.process.kill()
        shutil.rmtree(doomed, ignore_errors=True)
        return True

    def change_aliases(self, body: Any) -> None:
        """All actions or none."""
        aliases = dict(self.aliases)
        for action in check(AliasActions, body).actions:
            self._change_alias(aliases, action)
        self.aliases = aliases
        self._save_aliases()

    def _change_alias(self, aliases: dict[str, str], action: AliasAction) -> None:
        if len(action.model_fields_set) != 1:
            raise malformed("an action is one of create_alias, delete_alias, rename_alias")
        if action.create_alias is not None:
            alias = self._new_alias(action.create_alias.alias_name)
            target = action.create_alias.collection_name
            if target not in self.engines:
                raise missing_collection(target)
            aliases[alias] = target
        elif action.rename_alias is not None:
            old = action.rename_alias.old_alias_name
            if old not in aliases:
                raise ApiError(404, f"Not found: Alias {old} does not exists!")
            aliases[self._new_alias(action.rename_alias.new_alias_name)] = aliases.pop(old)
        elif action.delete_alias is not None:
            # A real server has no word for an alias that is not there either.
            aliases.pop(names.alias(action.delete_alias.alias_name), None)

    def _new_alias(self, value: object) -> str:
        alias = names.alias(value)
        if alias in self.engines:
            raise ApiError(409, f"Wrong input: Collection `{alias}` already exists!")
        return alias

    def save(self, name: str, config: Mapping[str, Any], indexes: Mapping[str, Any]) -> None:
        """Write a collection's description."""
        directory = self.directory(name)
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"name": name, "config": config, "indexes": indexes}, indent=1)
        write_whole(directory / DESCRIPTION, text)

    def directory(self, name: str) -> Path:
        """A collection's directory."""
        return self.root / names.directory(name)

    def _load(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for file in sorted(self.root.glob(f"*/{DESCRIPTION}")):
            try:
                saved = json.loads(file.read_text())
                name, config, indexes = saved["name"], saved["config"], saved["indexes"]
            except (OSError, *MISTAKES) as error:
                log.error("%s cannot be read (%s); that collection is left out, the others serve", file, error)
                continue
            directory = self._migrated(file.parent, name)
            if directory is not None:
                self.engines[name] = EngineProxy(directory, config, indexes)
        for doomed in self.root.glob(f"{DELETED}*"):
            shutil.rmtree(doomed, ignore_errors=True)
        aliases = self.root / ALIASES
        self.aliases = json.loads(aliases.read_text()) if aliases.exists() else {}

    def _migrated(self, directory: Path, name: str) -> Path | None:
        """Where a collection lies now. None for the rest of a deleted one.

        Releases before 0.2 called a directory by the collection's quoted name, so that `.deleted-x` and `aliases.json`
        could be collections too. Each is renamed at once, its snapshots first: a crash leaves what the next start goes
        on with.
        """
        present, former = self.directory(name), quote(name, safe="")
        if directory == present:
            return present
        if directory.name.startswith(DELETED) and directory.name != former:
            return None
        if present.exists():
            log.error("collection %r lies in %s as well; that one is left alone", name, directory)
            return None
        snapshots = self.defaults.snapshots
        if (snapshots / former).is_dir() and not (snapshots / present.name).exists():
            (snapshots / former).rename(snapshots / present.name)
        directory.rename(present)
        sync_directory(self.root)
        return present

    def _save_aliases(self) -> None:
        write_whole(self.root / ALIASES, json.dumps(self.aliases))


def new_config(body: Any, defaults: Config) -> dict[str, Any]:
    """A collection's whole configuration from the body of its creation, in the shape in which it is read back."""
    check_creation(body)
    for key in ("shard_number", "replication_factor", "write_consistency_factor"):
        if (body.get(key) or 1) != 1:
            raise ApiError(
                400, f"Wrong input: the embedded engine is one node with one shard: {key} must be 1, got {body[key]}"
            )
    if body.get("sharding_method") == "custom":
        raise refused("custom sharding")
    optimizers = _set(body.get("optimizers_config"))
    if optimizers.get("max_optimization_threads") == "auto":
        optimizers["max_optimization_threads"] = None
    config = {
        "params": {
            "vectors": body.get("vectors") or {},
            **({"sparse_vectors": body["sparse_vectors"]} if body.get("sparse_vectors") else {}),
            "shard_number": 1,
            "replication_factor": 1,
            "write_consistency_factor": 1,
            "on_disk_payload": _given(body.get("on_disk_payload"), defaults.on_disk_payload),
        },
        "hnsw_config": {**HNSW, **_set(body.get("hnsw_config"))},
        "optimizer_config": {**defaults.optimizers, **optimizers},
        "wal_config": {**WAL, **_set(body.get("wal_config"))},
        "quantization_config": body.get("quantization_config"),
    }
    if body.get("strict_mode_config"):
        config["strict_mode_config"] = _set(body["strict_mode_config"])
    if body.get("metadata"):
        config["metadata"] = body["metadata"]
    return checked(config)


def patched(config: Mapping[str, Any], body: Any) -> dict[str, Any]:
    """A configuration after `PATCH`: sections merge, unknown fields are passed over as the server does."""
    check_change(body)
    changed: dict[str, Any] = json.loads(json.dumps(config))
    changed["hnsw_config"] |= _set(body.get("hnsw_config"))
    optimizers = _set(body.get("optimizers_config"))
    if optimizers.get("max_optimization_threads") == "auto":
        optimizers["max_optimization_threads"] = None
    changed["optimizer_config"] |= optimizers
    params = _set(body.get("params"))
    for key in ("replication_factor", "write_consistency_factor"):
        if params.get(key, 1) != 1:
            raise ApiError(400, f"Wrong input: the embedded engine is one node: {key} must be 1, got {params[key]}")
    changed["params"] |= {key: params[key] for key in ("on_disk_payload",) if key in params}
    for name, update in _set(body.get("vectors")).items():
        vectors = changed["params"]["vectors"]
        target = vectors if name == "" and single(vectors) else vectors.get(name)
        if target is None:
            raise ApiError(400, f"Wrong input: Not existing vector name error: {name}")
        target |= {key: None if value == "Disabled" else value for key, value in update.items()}
    for name in _set(body.get("sparse_vectors")):
        if name not in (changed["params"].get("sparse_vectors") or {}):
            raise ApiError(400, f"Wrong input: Not existing vector name error: {name}")
        raise refused("changes of sparse vectors")
    wanted = body.get("quantization_config")
    if wanted is not None:
        changed["quantization_config"] = None if wanted == "Disabled" else wanted
    if body.get("strict_mode_config"):
        changed["strict_mode_config"] = {**changed.get("strict_mode_config", {}), **_set(body["strict_mode_config"])}
    if body.get("metadata"):
        merged = {**changed.get("metadata", {}), **body["metadata"]}
        changed["metadata"] = {key: value for key, value in merged.items() if value is not None}
    return checked(changed)


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """The same configuration, once the wheel's own types take it."""
    try:
        shard_config(config)
    except MISTAKES as error:
        raise malformed(str(error)) from error
    return config


def index_schema(body: Any) -> tuple[str, Any]:
    """The field and the parameters of a payload index."""
    _check_options(body)
    check(NewIndex, body)
    schema = body.get("field_schema") or body.get("field_type")
    if schema is None:
        raise ApiError(400, "Wrong input: field_schema is missing; name the type of the index")
    try:
        index(schema)
    except MISTAKES as error:
        raise malformed(str(error)) from error
    path(body["field_name"])
    if isinstance(schema, dict) and schema.get("lookup") is False and schema.get("range") is False:
        raise invalid("field_schema: lookup and range cannot both be false")
    return body["field_name"], schema


def _check_options(body: Any) -> None:
    """What a real server does with text and this engine cannot."""
    schema = body.get("field_schema") if isinstance(body, dict) else None
    for option in ("stopwords", "stemmer"):
        if isinstance(schema, dict) and schema.get(option) is not None:
            raise refused(f"'{option}' on an index")


def _set(section: Any) -> dict[str, Any]:
    if section is not None and not isinstance(section, dict):
        raise malformed(f"expected an object, got {section!r}")
    return {key: value for key, value in (section or {}).items() if value is not None}


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value
