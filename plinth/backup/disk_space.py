"""Room on disk, asked for before anything is begun: by the sizes that are known, and a margin for what is not."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plinth.backup.manifest import Collection, DatabasePart, Manifest
from plinth.backup.session import BackupError

# For what grows meanwhile, and for the packs and the index that restic holds.
SHARE, SPARE = 1.1, 32 << 20
# What a database takes for each byte of its dump, where the set does not say: its indexes are not in the dump.
UNPACKED = 2
# A snapshot is fetched, put where the engine finds it, and unpacked there.
COPIES = 3
# A throw-away Postgres with nothing in it, and its log.
EMPTY_POSTGRES = 96 << 20
# What a Neo4j takes for each byte of its lines, with its log.
GRAPH = 3
_BYTES = {"float16": 2, "uint8": 1}


@dataclass(frozen=True)
class Disk:
    """A disk by its number, and the bytes that are free on it."""

    number: int
    free: int


def require(what: str, needs: Mapping[Path, int]) -> None:
    """Raise :class:`BackupError` where a disk lacks the bytes that its directories are to take."""
    if said := refusal(what, needs, {path: disk(path) for path in needs}):
        raise BackupError(said)


def refusal(what: str, needs: Mapping[Path, int], disks: Mapping[Path, Disk]) -> str | None:
    """A sentence for the first disk that lacks room; directories on one disk add up."""
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
    """The disk of a directory, which need not exist yet."""
    there = next(each for each in (path, *path.parents) if each.exists())
    return Disk(there.stat().st_dev, shutil.disk_usage(there).free)


def vectors(described: Mapping[str, Any], points: int) -> int:
    """The bytes that the vectors of so many points take at least: every point has the vector without a name."""
    wanted = described["config"]["params"].get("vectors") or {}
    return points * int(wanted["size"]) * _BYTES.get(str(wanted.get("datatype")), 4) if "size" in wanted else 0


def of_collection(described: Mapping[str, Any], saved: Collection | None, size: int) -> int:
    """The bytes that a collection will take in a set, at least: ``size`` is what it took when it was ``saved``.

    The logs that each shard keeps do not grow with the points, so what is new counts by its vectors alone.
    """
    points = int(described.get("points_count") or 0)
    known = saved.points.low if saved and saved.points else 0
    return size * points // known if points < known else size + vectors(described, points - known)


def held(manifest: Manifest, collection: Collection) -> int:
    """The bytes of a collection's files in a set."""
    return sum(manifest.piece(shard.path).size for shard in collection.shards)


def unpacked(manifest: Manifest, database: DatabasePart) -> int:
    """The bytes that a database takes in a server."""
    return database.live_bytes or UNPACKED * manifest.piece(database.path).size


def graph(manifest: Manifest) -> int:
    """The bytes that the set's Neo4j takes in a server."""
    part = manifest.neo4j
    return GRAPH * sum(manifest.piece(path).size for path in (part.nodes_path, part.relationships_path)) if part else 0


def of_backup(
    stage: Path,
    repository: Path | None,
    snapshots: Path | None,
    last: Manifest | None,
    live: Mapping[str, Mapping[str, Any]],
) -> dict[Path, int]:
    """What a backup takes: ``live`` are the answers of `GET /collections/{name}` by name, ``last`` is the set before.

    Qdrant makes a snapshot beside its data before it is fetched: ``snapshots``, where that is on this machine.
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
    """What a drill takes at its fullest: one database or one collection at a time, and the small stores beside it."""
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
    """What a restore takes: the set's files where they are fetched, and what they become in ``data`` where it is here.

    A collection that takes the place of a live one is there ``twice`` for a while.
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
