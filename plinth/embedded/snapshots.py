"""Snapshots in the embedded engine's own format: a tar of `manifest.json` and the flushed shard. Not Qdrant's."""

from __future__ import annotations

import asyncio
import json
import shutil
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from plinth.embedded import ENGINE, names, shard_files
from plinth.embedded.collection_registry import Catalogue, checked
from plinth.embedded.configurations import Recovery, check
from plinth.embedded.errors import ApiError, malformed, refused
from plinth.system.archives import UnsafeArchive, unpack
from plinth.system.atomic_files import sha256

FORMAT = "plinth-embedded-1"
RECOVERING = ".recover-"


class Snapshots:
    """The snapshots of every collection, under the configured directory."""

    def __init__(self, catalogue: Catalogue, root: Path) -> None:
        self.catalogue = catalogue
        self.root = root
        self.created: dict[str, int] = {}
        for cut_off in catalogue.defaults.storage.glob(f"{RECOVERING}*"):
            shutil.rmtree(cut_off, ignore_errors=True)

    async def create(self, name: str) -> dict[str, Any]:
        """Flush a collection and pack it; answers name, creation time, size and SHA-256."""
        engine = self.catalogue.engine(name)
        directory = self._directory(name)
        directory.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC)
        file = directory / f"{names.readable(name)}-0-{now:%Y-%m-%d-%H-%M-%S}-{now.microsecond:06d}.snapshot"
        manifest, partial = file.with_suffix(".manifest"), file.with_suffix(".partial")
        described = {"format": FORMAT, "engine": ENGINE, "config": engine.config, "indexes": engine.indexes}
        try:
            manifest.write_text(json.dumps(described))
            await engine.call("snapshot", orjson.dumps({"to": str(partial), "manifest": str(manifest)}))
            checksum = await asyncio.to_thread(sha256, partial)
            file.with_name(f"{file.name}.checksum").write_text(checksum)
            partial.rename(file)
        finally:
            manifest.unlink(missing_ok=True)
            partial.unlink(missing_ok=True)
        self.created[name] = self.created.get(name, 0) + 1
        return _described(file)

    def list(self, name: str) -> list[dict[str, Any]]:
        """A collection's snapshots."""
        return [_described(path) for path in sorted(self._directory(name).glob("*.snapshot"))]

    def path(self, name: str, snapshot: str) -> Path:
        """The file of a snapshot."""
        for path in self._directory(name).glob("*.snapshot"):
            if path.name == snapshot:
                return path
        raise ApiError(404, f"Not found: Snapshot {snapshot} not found")

    def delete(self, name: str, snapshot: str) -> None:
        """Remove a snapshot."""
        path = self.path(name, snapshot)
        path.unlink()
        path.with_name(f"{path.name}.checksum").unlink(missing_ok=True)

    async def recover(self, name: str, body: dict[str, Any]) -> None:
        """Replace a collection's content, or make the collection, from a `file://` within the snapshots directory."""
        if name not in self.catalogue.engines:
            names.check_collection(name)
        given = check(Recovery, body)
        path = self._located(given.location)
        checksum = given.checksum
        if checksum and await asyncio.to_thread(sha256, path) != checksum:
            raise ApiError(400, f"Checksum mismatch: the snapshot {path.name} is not the one whose checksum was given")
        with TemporaryDirectory(prefix=RECOVERING, dir=self.catalogue.defaults.storage) as scratch:
            unpacked = Path(scratch) / "unpacked"
            manifest = await asyncio.to_thread(_unpack, path, unpacked)
            await self._replace(name, manifest, unpacked / "shard")

    async def _replace(self, name: str, manifest: dict[str, Any], shard: Path) -> None:
        engine = self.catalogue.engines.get(name)
        if engine is not None:
            if engine.config["params"]["vectors"] != manifest["config"]["params"]["vectors"]:
                raise ApiError(400, "Wrong input: the snapshot's vectors differ from the collection's")
            await engine.stop()
        directory = self.catalogue.directory(name)
        directory.mkdir(parents=True, exist_ok=True)
        old = shard_files.current(directory)
        path = shard_files.following(old) if old else directory / "shard-0"
        shutil.rmtree(path, ignore_errors=True)
        shard.rename(path)
        shard_files.mark_built(path, manifest["config"], manifest["indexes"])
        shard_files.make_current(path)
        self.catalogue.add(name, manifest["config"], manifest["indexes"])

    def _located(self, location: str) -> Path:
        parts = urlsplit(location)
        if not parts.scheme:
            raise malformed(f"relative URL without a base: {location!r}")
        if parts.scheme != "file":
            raise refused("recovery from a URL; copy the snapshot into the snapshots directory and name it by file://")
        path = Path(unquote(parts.path)).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise ApiError(403, f"Forbidden: the snapshot must lie within {self.root}")
        if not path.is_file():
            raise ApiError(400, f"Wrong input: Snapshot file {path} does not exist")
        return path

    def _directory(self, name: str) -> Path:
        return self.root / self.catalogue.directory(name).name


def _unpack(path: Path, directory: Path) -> dict[str, Any]:
    try:
        # Not compressed: what is unpacked needs no more room than the file.
        with tarfile.open(path, "r:") as archive:
            unpack(archive, directory, holes=True)
        manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
        if manifest["format"] != FORMAT or not (directory / "shard").is_dir():
            raise _foreign(path)
        return {"config": checked(manifest["config"]), "indexes": dict(manifest["indexes"])}
    except (tarfile.TarError, UnsafeArchive, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _foreign(path) from error


def _foreign(path: Path) -> ApiError:
    return ApiError(
        400,
        f"Wrong input: {path.name} is not a snapshot of the embedded engine, which reads its own format only; "
        "restore a Qdrant snapshot into a real server",
    )


def _described(path: Path) -> dict[str, Any]:
    made = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    checksum = path.with_name(f"{path.name}.checksum")
    return {
        "name": path.name,
        "creation_time": f"{made:%Y-%m-%dT%H:%M:%S}",
        "size": path.stat().st_size,
        "checksum": checksum.read_text() if checksum.exists() else None,
    }
