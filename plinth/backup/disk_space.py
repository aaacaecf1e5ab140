"""Check the free disk space before a job starts: the known sizes, and a margin for the unknown ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plinth.backup.manifest import Collection, DatabasePart, Manifest
from plinth.backup.session import BackupError

# For data that grows during the job, and for the packs and the index of restic.
SHARE, SPARE = 1.1, 32 << 20
# Bytes of a database per byte of its dump, where the set does not say: indexes are not in the dump.
UNPACKED = 2
# A snapshot is fetched, copied to where Qdrant reads it, and unpacked there.
COPIES = 3
# An empty temporary Postgres and its WAL.
EMPTY_POSTGRES = 96 << 20
# Bytes of a Neo4j per byte of its JSON lines, with its log.
GRAPH = 3
_BYTES = {"float16": 2, "uint8": 1}


@dataclass(frozen=True)
class Disk:
    """A disk by its device number, and the bytes that are free on it."""

    number: int
    free: int


def require(what: str, needs: Mapping[Path, int]) -> None:
    """Raise :class:`BackupError` where a disk has fewer free bytes than its directories need."""
    if said := refusal(what, needs, {path: disk(path) for path in needs}):
        raise BackupError(said)


def refusal(what: str, needs: Mapping[Path, int], disks: Mapping[Path, Disk]) -> str | None:
    """Return a message for the first disk with too little free space, or None. Directories on one disk add up."""
    for first in needs:
        shared = [path for path in needs if disks[path].number == disks[first].number]
        needed, free = int(sum(needs[path] for path in shared) * SHARE) + SPARE, disks[first].free
        if needed > free:
            return (
                f"{what} needs about {_mib(needed)} MiB on the disk of {first}, and {free >> 20} MiB are free there; "
                "make room, and run it again. Nothing was begun."
            )
    return None


def disk(path: Path) -> Disk:
    """Return the disk of a directory, which need not exist yet."""
    there = next(each for each in (path, *path.parents) if each.exists())
    return Disk(there.stat().st_dev, shutil.disk_usage(there).free)


def vectors(described: Mapping[str, Any], points: int) -> int:
    """Return the least bytes that the vectors of so many points take. Every point has the vector without a name."""
    wanted = described["config"]["params"].get("vectors") or {}
    return points * int(wanted["size"]) * _BYTES.get(str(wanted.get("datatype")), 4) if "size" in wanted else 0


def of_collection(described: Mapping[str, Any], saved: Collection | None, size: int) -> int:
    """Estimate the least bytes that a collection takes in a set; ``size`` is what it took when it was ``saved``.

    The logs that each shard keeps do not grow with the points, so new points count by their vectors alone.
    """
    points = int(described.get("points_count") or 0)
    known = saved.points.low if saved and saved.points else 0
    return size * points // known if points < known else size + vectors(described, points - known)


def held(manifest: Manifest, collection: Collection) -> int:
    """Return the bytes of a collection's files in a set."""
    return sum(manifest.piece(shard.path).size for shard in collection.shards)


def unpacked(manifest: Manifest, database: DatabasePart) -> int:
    """Return the bytes that a database takes in a server."""
    return database.live_bytes or UNPACKED * manifest.piece(database.path).size


def graph(manifest: Manifest) -> int:
    """Return the bytes that the Neo4j of a set takes in a server."""
    part = manifest.neo4j
    return GRAPH * sum(manifest.piece(path).size for path in (part.nodes_path, part.relationships_path)) if part else 0


def of_backup(
    stage: Path,
    repository: Path | None,
    snapshots: Path | None,
    last: Manifest | None,
    live: Mapping[str, Mapping[str, Any]],
) -> dict[Path, int]:
    """Return the bytes that a backup needs, by directory.

    ``live`` are the answers of `GET /collections/{name}` by name, ``last`` is the previous set. Qdrant writes a
    snapshot next to its data before it is downloaded: ``snapshots`` is that directory where it is on this machine.
    """
    before = {saved.name: saved for saved in last.qdrant.collections} if last and last.qdrant else {}
    sizes = []
    for name, described in live.items():
        saved = before.get(name)
        sizes.append(of_collection(described, saved, held(last, saved) if last and saved else 0))
    others = sum(piece.size for piece in last.pieces if not piece.path.startswith("qdrant/")) if last else 0
    total = sum(sizes) + others
    needs = {stage: total}
    if repository:
        needs[repository] = max(0, total - (last.size if last else 0))
    if snapshots:
        needs[snapshots] = max(sizes, default=0)
    return needs


def of_drill(scratch: Path, manifest: Manifest) -> dict[Path, int]:
    """Return the bytes that a drill needs at most: one database or one collection at a time, and the small stores."""
    databases = manifest.postgres.databases if manifest.postgres else ()
    collections = manifest.qdrant.collections if manifest.qdrant else ()
    fullest = [
        *(manifest.piece(each.path).size + unpacked(manifest, each) for each in databases),
        *(COPIES * held(manifest, each) for each in collections),
    ]
    small = sum(2 * piece.size for piece in manifest.pieces if not piece.path.startswith(("qdrant/", "postgres/")))
    return {scratch: max(fullest, default=0) + small + graph(manifest) + (EMPTY_POSTGRES if databases else 0)}


def of_restore(
    fetched: Path,
    data: Path | None,
    manifest: Manifest,
    paths: Iterable[str],
    databases: Iterable[DatabasePart],
    collections: Iterable[Collection],
    *,
    twice: bool,
) -> dict[Path, int]:
    """Return the bytes that a restore needs, by directory.

    They are the files of the set where they are fetched, and the restored data in ``data`` where that is on this
    machine. A collection that replaces a live one takes its space ``twice`` for a while.
    """
    needs = {fetched: sum(manifest.piece(path).size for path in paths)}
    if data:
        sizes = [held(manifest, each) for each in collections]
        needs[data] = (
            sum(unpacked(manifest, each) for each in databases) + (1 + twice) * sum(sizes) + max(sizes, default=0)
        )
    return needs


def _mib(size: int) -> int:
    return -(-size >> 20)
