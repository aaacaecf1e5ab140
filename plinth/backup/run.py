"""One backup: stage every store, verify, write the manifest, store one snapshot, delete expired sets.

Qdrant comes first and Postgres last: each point then has its row, and rows without a point can be embedded again.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from plinth.backup import disk_space, store_lock
from plinth.backup.config import Config
from plinth.backup.manifest import NAME, Manifest, differences, parse, pieces_below
from plinth.backup.repository import reachability
from plinth.backup.repository.restic import Restic
from plinth.backup.repository.restic_output import Snapshot
from plinth.backup.session import BackupError, Say, Work, emptied, full_disk_said, is_of_disk, working
from plinth.backup.stores.grafana import backup as grafana_backup
from plinth.backup.stores.postgres import backup as postgres_backup
from plinth.backup.stores.qdrant.backup import TakingMeanwhile, described
from plinth.backup.stores.qdrant.node_client import Journal, nodes
from plinth.backup.stores.redis import backup as redis_backup
from plinth.errors import UserError
from plinth.printable import visible
from plinth.status_files.backup_runs import Result, Run, record
from plinth.system.timestamps import past

log = logging.getLogger("plinth.backup")


@dataclass(frozen=True)
class Taken:
    """A set that is stored in the repository."""

    snapshot: str
    manifest: Manifest
    added: int
    seconds: float


def run(config: Config, say: Say, *, wait_s: float = 0.0) -> Taken:
    """Make a backup and record its result in the status file.

    Raises :class:`UserError` where nothing could be stored.
    """
    with working(config, say, wait_s=wait_s) as work:
        taken, sets = _recorded(work)
        if config.append_only:
            work.say("done; old sets stay, for the repository is append-only")
            return taken
        try:
            restic = Restic(work)
            if restic.forget(config.keep, sets):
                work.say("letting old sets go")
                restic.prune()
        except BackupError as error:
            raise BackupError(
                f"The set {taken.snapshot[:8]} is stored; old ones could not be let go: {error}"
            ) from error
        work.say("done")
    return taken


def _recorded(work: Work) -> tuple[Taken, list[Snapshot]]:
    """Make the set and record the result for the exporter. Returns it with all sets of the repository."""
    began_at, began = time.time(), time.monotonic()
    try:
        with full_disk_said(work.config.directory):
            taken, sets = _run(work, began)
    except Exception as error:
        seconds = time.monotonic() - began
        failed = Run(attempted_at=began_at, result="failed", duration_s=seconds, detail=str(error))
        record(work.config.state, "backup", failed)
        raise
    manifest = taken.manifest
    done = Run(
        attempted_at=began_at,
        result="ok" if manifest.complete else "incomplete",
        duration_s=taken.seconds,
        size_bytes=manifest.size,
        stores=manifest.stores,
        detail=" ".join(manifest.failures),
    )
    record(work.config.state, "backup", done)
    return taken, sets


def clean(work: Work) -> None:
    """Remove what a killed run left behind: its stage, and the snapshot that Qdrant was creating for it."""
    shutil.rmtree(work.stage, ignore_errors=True)
    if work.config.qdrant:
        for sentence in Journal(work.config.directory).clean(nodes(work.config.qdrant)):
            work.say(f"qdrant: {sentence}")


def _run(work: Work, began: float) -> tuple[Taken, list[Snapshot]]:
    work.say("opening the repository")
    restic = Restic(work)
    absent = restic.is_absent()
    sets = [] if absent else restic.open_and_list()
    clean(work)
    disk_space.require("The backup", _needs(work, restic, sets))
    emptied(work.stage)
    try:
        with ThreadPoolExecutor(1) as pool:
            # A new repository spends a second to calibrate the cost of its key.
            making = pool.submit(restic.make) if absent else None
            with store_lock.backing_up(work.config.postgres, work.turn):
                manifest = _staged(work, time.time())
        if making:
            making.result()
        work.say(f"storing {manifest.data} bytes of data in {restic.location}")
        snapshot_id, added = restic.save(work.stage, complete=manifest.complete)
        snapshot = _compare(restic, snapshot_id, manifest, append_only=work.config.append_only)
    finally:
        shutil.rmtree(work.stage, ignore_errors=True)
    return Taken(snapshot.id, manifest, added, time.monotonic() - began), [*sets, snapshot]


def _needs(work: Work, restic: Restic, sets: Sequence[Snapshot]) -> dict[Path, int]:
    config = work.config
    return disk_space.of_backup(
        work.stage,
        reachability.directory(config.repository.location),
        config.qdrant.snapshots if config.qdrant else None,
        _last(work, restic, sets),
        described(nodes(config.qdrant)) if config.qdrant else {},
    )


def _last(work: Work, restic: Restic, sets: Sequence[Snapshot]) -> Manifest | None:
    """Return the manifest of the newest set, or None if it is unreadable, which is not fatal."""
    found = sets[-1:]
    try:
        return parse(restic.manifest(found[0]), f"set {found[0].short}") if found else None
    except BackupError as error:
        work.say(f"the size of this set is not known from the one before: {error}")
        return None


def _staged(work: Work, began_at: float) -> Manifest:
    config = work.config
    stores: dict[str, Result] = {}
    lacking: dict[str, list[str]] = {}
    parts: dict[str, object] = {}

    def keep(store: str, part: object | None, lacks: list[str]) -> None:
        parts[store], lacking[store] = part, lacks
        stores[store] = "ok" if part and not lacks else "incomplete" if part else "failed"
        for sentence in lacks:
            work.say(f"INCOMPLETE: {sentence}")

    with _qdrant_first(work) as qdrant:
        for store, take in _takings(work).items():
            keep(store, *_alone(store, take))
        if qdrant:
            keep("qdrant", *_alone("qdrant", qdrant.taken))
    order = sorted(stores, key=lambda store: store != "qdrant")
    failures = [sentence for store in order for sentence in lacking[store]]
    if not any(parts.values()):
        raise BackupError(f"Nothing could be taken: {' '.join(failures) or 'no store is configured.'}")
    for store, why in config.not_taken.items():
        work.say(f"{store} is not taken: {why}")
    work.say("writing the manifest")
    manifest = Manifest.model_validate(
        {
            "name": config.name,
            "plinth": version("plinth"),
            "revision": config.revision,
            "began_at": began_at,
            "ended_at": time.time(),
            "stores": {store: stores[store] for store in order},
            "failures": failures,
            "not_taken": config.not_taken,
            "pieces": pieces_below(work.stage, work.measured),
            **parts,
        }
    )
    (work.stage / NAME).write_text(manifest.model_dump_json(indent=1))
    return manifest


Taker = Callable[[], tuple[object | None, list[str]]]


@contextmanager
def _qdrant_first(work: Work) -> Iterator[TakingMeanwhile | None]:
    """Start the backup of Qdrant, and yield it once its snapshots are created.

    Within the block the snapshots are downloaded while the other stores are backed up.
    """
    store = work.config.qdrant
    if store is None:
        yield None
        return
    taking = TakingMeanwhile(work, nodes(store))
    try:
        taking.await_snapshots()
        yield taking
    except BaseException:
        taking.give_up()
        raise


def _takings(work: Work) -> dict[str, Taker]:
    """Return the backup function of each store but Qdrant, in order."""
    config = work.config
    takings: dict[str, Taker] = {}
    if redis_store := config.redis:
        takings["redis"] = lambda: redis_backup.take(work, redis_store)
    if grafana_store := config.grafana:
        takings["grafana"] = lambda: grafana_backup.take(work, grafana_store)
    if neo4j_store := config.neo4j:
        # The driver is slow to import, and most environments have no Neo4j.
        from plinth.backup.stores.neo4j import backup as neo4j_backup

        takings["neo4j"] = lambda: neo4j_backup.take(work, neo4j_store)
    if postgres_store := config.postgres:
        takings["postgres"] = lambda: postgres_backup.take(work, postgres_store)
    return takings


def _alone(store: str, take: Taker) -> tuple[object | None, list[str]]:
    """Back up one store. A failure does not stop the other stores, except a disk error, which affects them all."""
    try:
        return take()
    except OSError as error:
        if is_of_disk(error):
            raise
        return None, [f"{store} was not taken: {error}"]
    except UserError as error:
        return None, [str(error)]
    except Exception as error:
        log.debug("%s", store, exc_info=True)
        return None, [f"{store} was not taken: {visible(f'{type(error).__name__}: {error}')[:300]}; report it."]


def _compare(restic: Restic, snapshot_id: str, manifest: Manifest, *, append_only: bool) -> Snapshot:
    """Compare the repository's listing with the staged files: restic exits 0 even where a path was missing."""
    snapshot, listed = restic.saved(snapshot_id)
    listed.pop(NAME, None)
    wrong = differences(listed, manifest.pieces)
    if wrong:
        if append_only:
            raise BackupError(
                f"The snapshot {snapshot_id[:8]} is not what was staged: {wrong[0]}. No restore takes it; remove it "
                f"where this repository is pruned: `restic forget {snapshot_id[:8]}`."
            )
        restic.drop(snapshot_id)
        raise BackupError(f"The snapshot {snapshot_id[:8]} is not what was staged, and was let go: {wrong[0]}.")
    return snapshot


def newest(
    restic: Restic, found: Sequence[Snapshot], wanted: str | None = None, *, incomplete: bool = False
) -> Snapshot:
    """Return the set with an id, or the newest complete one. Raises :class:`BackupError` where there is none."""
    if wanted:
        matching = [snapshot for snapshot in found if snapshot.id.startswith(wanted)]
        if len(matching) != 1:
            raise BackupError(
                f"{len(matching)} sets begin with '{wanted}' in {restic.location}; `plinth backup list` shows them."
            )
        return matching[0]
    usable = [snapshot for snapshot in found if snapshot.complete or incomplete]
    if not usable:
        what = "no complete set" if found else "no set"
        raise BackupError(f"There is {what} in {restic.location} yet; `plinth backup run` makes one.")
    now = time.time()
    # A set written under a clock that was ahead may be older than all others.
    return ([snapshot for snapshot in usable if past(snapshot.at, now) is not None] or usable)[-1]
