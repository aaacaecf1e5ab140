"""A collection as code, with the keys of Qdrant's REST API, and a few of Plinth's own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from plinth.errors import UserError
from plinth.qdrant.config_sections import (
    Hnsw,
    Optimizers,
    Quantization,
    Section,
    SparseVectors,
    StrictMode,
    Vectors,
    Wal,
)
from plinth.qdrant.payload_index import PayloadIndex
from plinth.system.yaml_files import read_yaml

__all__ = ["CollectionSpec", "Search", "load_spec", "load_specs", "named"]


def _plain(name: str) -> str:
    # Qdrant accepts more, but a name is also a part of addresses, labels of metrics and names of snapshot files.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", name):
        raise ValueError("expected letters, digits, '.', '_' and '-', a letter or digit first, 255 at most")
    return name


Name = Annotated[str, AfterValidator(_plain)]


class Search(Section):
    """The default parameters of every search of this collection."""

    hnsw_ef: int | None = Field(None, ge=1)
    rescore: bool = True
    oversampling: float = Field(1.0, ge=1)
    score_threshold: float | None = None

    def params(self) -> dict[str, Any]:
        """Return Qdrant's `params` of a query."""
        params: dict[str, Any] = {"quantization": {"rescore": self.rescore, "oversampling": self.oversampling}}
        return params | ({"hnsw_ef": self.hnsw_ef} if self.hnsw_ef else {})


class CollectionSpec(Section):
    """One collection.

    ``name`` is the physical collection, ``aliases`` the names that applications use, so that a new physical collection
    can take over behind them. ``tenant`` is the payload field that every search must carry; ``searched_by`` are several
    of which a search carries one. Where ``hnsw_config.m`` is 0 only their values have links in the graph.
    With ``tenancy`` the gateway shares the collection among organisations: each point carries its organisation in
    ``tenant``, or its user where ``tenant_is`` says so, and ``presets`` are filters that callers use by name
    (:mod:`plinth.gateway.presets`). A point of a user whose ``public_field`` is true is readable by the whole
    organisation, and a search carries the tenant or that field.
    """

    name: Name
    description: str = ""
    aliases: tuple[Name, ...] = ()
    vectors: Vectors
    sparse_vectors: dict[str, SparseVectors] = Field(default_factory=dict)
    shard_number: int | None = Field(None, ge=1)
    sharding_method: Literal["auto", "custom"] | None = None
    replication_factor: int | None = Field(None, ge=1)
    write_consistency_factor: int | None = Field(None, ge=1)
    on_disk_payload: bool | None = None
    hnsw_config: Hnsw = Hnsw()
    quantization_config: Quantization | None = None
    optimizers_config: Optimizers = Optimizers()
    wal_config: Wal = Wal()
    strict_mode_config: StrictMode | None = None
    metadata: dict[str, Any] | None = None
    payload_indexes: dict[str, PayloadIndex] = Field(default_factory=dict)
    tenant: str | None = None
    searched_by: tuple[str, ...] = ()
    tenancy: Literal["payload"] | None = None
    tenant_is: Literal["organisation", "user"] = "organisation"
    public_field: str | None = None
    presets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    search: Search = Search()
    batch_size: int = Field(100, ge=1, le=10000, description="Points a request when loading (S3-02).")

    @model_validator(mode="before")
    @classmethod
    def _index_by_type(cls, data: Any) -> Any:
        """Expand `field: keyword` to `field: {type: keyword}`, as the REST API does."""
        if isinstance(data, dict) and isinstance(data.get("payload_indexes"), dict):
            indexes = data["payload_indexes"]
            return {
                **data,
                "payload_indexes": {f: {"type": i} if isinstance(i, str) else i for f, i in indexes.items()},
            }
        return data

    @model_validator(mode="after")
    def _tenancy(self) -> Self:
        index = self.payload_indexes.get(self.tenant) if self.tenant else None
        if self.tenant and not (index and index.is_tenant):
            raise ValueError(f"tenant is '{self.tenant}', so payload_indexes must hold it with is_tenant: true")
        if self.tenancy and not self.tenant:
            raise ValueError("tenancy is payload, so name the payload field: tenant, with is_tenant in payload_indexes")
        if self.presets and not self.tenancy:
            raise ValueError("presets are the gateway's, for a collection that it shares; set tenancy: payload")
        if self.public_field:
            self._public()
        if self.tenant and self.searched_by:
            raise ValueError("tenant and searched_by exclude each other; keep one")
        for field in self.searched_by:
            if field not in self.payload_indexes:
                raise ValueError(f"searched_by names '{field}', so payload_indexes must hold it")
        if self.hnsw_config.m == 0 and not (self.scopes and self.hnsw_config.payload_m):
            raise ValueError(
                "hnsw_config.m is 0, so name the tenant or searched_by and set hnsw_config.payload_m to 16, "
                "or set m to 16"
            )
        return self

    def _public(self) -> None:
        if not self.tenancy or self.tenant_is != "user":
            raise ValueError("public_field lets users share points of theirs; set tenancy: payload and tenant_is: user")
        index = self.payload_indexes.get(self.public_field or "")
        if not index or index.type != "bool":
            raise ValueError(f"public_field is '{self.public_field}', so payload_indexes must hold it as a bool")

    @property
    def scopes(self) -> tuple[str, ...]:
        """The payload fields of which every search names one; empty for a collection that is searched as a whole."""
        if self.tenant:
            return (self.tenant, self.public_field) if self.public_field else (self.tenant,)
        return self.searched_by

    def to_data(self) -> dict[str, Any]:
        """The spec as plain data, which a configuration or Pulumi's state may hold."""
        return self.model_dump(mode="json", exclude_none=True)

    def create_body(self) -> dict[str, Any]:
        """Return the body of `PUT /collections/{name}`: the values of the spec under Qdrant's keys."""
        own = {"name", "description", "aliases", "payload_indexes", "search", "batch_size"}
        own |= {"tenant", "searched_by", "tenancy", "tenant_is", "public_field", "presets"}
        body = self.model_dump(exclude=own, exclude_none=True)
        return {key: value for key, value in body.items() if value != {}}


def load_specs(
    directory: Path,
    only: Sequence[str] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[CollectionSpec]:
    """Load the collections of a directory of YAML files, by name.

    ``only`` and the keys of ``overrides`` are physical names or aliases. Raises :class:`UserError` naming file and key.
    """
    paths = sorted(directory.glob("*.y*ml"))
    if not paths:
        raise UserError(f"There is no collection file in {directory}; add one, or set plinth:collections.directory.")
    documents = [_document(path) for path in paths]
    names = {name for document in documents for name in _names(document)}
    for wanted in {*(only or ()), *(overrides or {})} - names:
        raise UserError(
            f"plinth:collections names '{wanted}', which no file in {directory} has; there are {_list(names)}."
        )
    specs = []
    for path, document in zip(paths, documents, strict=True):
        called = _names(document)
        if only is not None and not called & set(only):
            continue
        changes = [change for name, change in (overrides or {}).items() if name in called]
        specs.append(_parse(path, _merged(document, *changes)))
    refused = next(_conflicts(specs), None)
    if refused:
        raise UserError(refused)
    return specs


def load_spec(path: Path) -> CollectionSpec:
    """Load the collection of one file. Raises :class:`UserError` naming file and key."""
    if not path.is_file():
        raise UserError(f"There is no collection file {path}; name one that is there.")
    return _parse(path, _document(path))


def named(specs: Sequence[CollectionSpec], name: str) -> CollectionSpec:
    """Return the collection of this name or alias; refuses an unknown name, and lists the known ones."""
    for spec in specs:
        if name in (spec.name, *spec.aliases):
            return spec
    known = _list({spec.aliases[0] if spec.aliases else spec.name for spec in specs})
    raise UserError(f"There is no collection '{name}'; there are {known}.")


def _document(path: Path) -> dict[str, Any]:
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise UserError(f"{path} must be a mapping with `name` and `vectors`; see config/collections for examples.")
    return document


def _names(document: Mapping[str, Any]) -> set[str]:
    aliases = document.get("aliases")
    return {str(document.get("name")), *(map(str, aliases) if isinstance(aliases, list) else ())}


def _merged(document: dict[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    for change in changes:
        document = {
            **document,
            **{
                key: {**document[key], **value}
                if isinstance(value, dict) and isinstance(document.get(key), dict)
                else value
                for key, value in change.items()
            },
        }
    return document


def _parse(path: Path, document: Mapping[str, Any]) -> CollectionSpec:
    try:
        return CollectionSpec.model_validate(document)
    except ValidationError as error:
        words = []
        for problem in error.errors(include_url=False):
            key = ".".join(str(part) for part in problem["loc"])
            said = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                words.append(f"unknown key {key}; correct or remove it")
            elif problem["type"] == "missing":
                words.append(f"{key} is missing; set it")
            else:
                got = f", got {problem['input']!r}" if key else ""
                words.append(f"{key}: {said[0].lower()}{said[1:]}{got}" if key else said)
        raise UserError(f"{path}: {'; '.join(words)}.") from None


def _conflicts(specs: Sequence[CollectionSpec]) -> Iterator[str]:
    names = Counter(spec.name for spec in specs)
    aliases = Counter(alias for spec in specs for alias in spec.aliases)
    for name, times in names.items():
        if times > 1:
            yield f"Two files in the collections directory are named '{name}'; give each its own name."
    for alias, times in aliases.items():
        owners = _list({spec.name for spec in specs if alias in spec.aliases})
        if times > 1:
            yield f"The alias '{alias}' is claimed by {owners}; an alias points to one collection: keep it in one file."
        if alias in names:
            yield f"'{alias}' is an alias of {owners} and the name of a collection; Qdrant allows one of them: rename."


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
