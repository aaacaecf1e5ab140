"""List, verify, check and prune the sets of the repository."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from plinth.backup.config import Config
from plinth.backup.manifest import NAME, Manifest, differences, parse
from plinth.backup.repository.restic import Restic
from plinth.backup.repository.restic_output import Snapshot
from plinth.backup.repository.set_folder import digests_of
from plinth.backup.run import newest
from plinth.backup.session import BackupError, Say, Work, working
from plinth.status_files.backup_runs import Run, record

# The largest clock difference between two machines.
CLOCK_SKEW_S = 3600.0


@dataclass(frozen=True)
class Set:
    """A set of the repository with its manifest, which is None where this version cannot read it."""

    snapshot: Snapshot
    manifest: Manifest | None


@dataclass(frozen=True)
class Verified:
    """A set of which every byte was read. ``problems`` are messages. Without a manifest nothing was compared."""

    snapshot: Snapshot
    manifest: Manifest | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Checked:
    """A check without findings, of one of ``parts`` parts of the data; ``packs`` is what restic reports as read."""

    part: int
    parts: int
    packs: str

    @property
    def share(self) -> str:
        """Return how much of the data was read."""
        if self.parts == 1:
            return "all of the data was read"
        return f"part {self.part} of {self.parts} of the data was read{f' ({self.packs})' if self.packs else ''}"


def sets(config: Config, say: Say) -> list[Set]:
    """Return every set, newest first."""
    with working(config, say) as work:
        restic = Restic(work)
        if not restic.is_there():
            return []
        return [Set(snapshot, _manifest_or_none(restic, snapshot)) for snapshot in reversed(restic.snapshots())]


def manifest_of(restic: Restic, snapshot: Snapshot) -> Manifest:
    """Return the manifest of a set."""
    return parse(restic.manifest(snapshot), f"set {snapshot.short}")


def verify(config: Config, say: Say, snapshot_id: str | None = None, *, wait_s: float = 0.0) -> Verified:
    """Check the repository, then read every byte of a set and compare it with its manifest."""
    with working(config, say, wait_s=wait_s) as work:
        restic = Restic(work)
        snapshot = newest(restic, restic.open_and_list(), snapshot_id, incomplete=True)
        say("checking the repository")
        restic.check()
        return _verified(work, restic, snapshot)


def verify_all(config: Config, say: Say, *, wait_s: float = 0.0) -> list[Verified]:
    """Check the repository, then read every byte of every set, newest first."""
    with working(config, say, wait_s=wait_s) as work:
        restic = Restic(work)
        snapshots = restic.open_and_list()
        say("checking the repository")
        restic.check()
        result = []
        for snapshot in reversed(snapshots):
            try:
                result.append(_verified(work, restic, snapshot))
            except BackupError as error:
                result.append(Verified(snapshot, None, (str(error),)))
        return result


def _verified(work: Work, restic: Restic, snapshot: Snapshot) -> Verified:
    manifest = manifest_of(restic, snapshot)
    listed = restic.listed(snapshot)
    listed.pop(NAME, None)
    wrong = differences(listed, manifest.pieces)
    pieces = [piece for piece in manifest.pieces if piece.path in listed]
    folders = sorted({piece.path.partition("/")[0] for piece in pieces if "/" in piece.path})
    digests: dict[str, str] = {}
    # A folder with the expected content is read by one start of restic.
    for folder in folders if not wrong else ():
        work.say(f"reading {folder} of set {snapshot.short}")
        within = [piece for piece in pieces if piece.path.startswith(f"{folder}/")]
        digests |= digests_of(restic, snapshot, folder, within)
    for piece in pieces:
        if piece.path not in digests:
            work.say(f"reading {piece.path} of set {snapshot.short}")
            digests[piece.path] = restic.fetch(snapshot, piece, None)
    wrong += [f"{piece.path} is not what was saved" for piece in pieces if digests[piece.path] != piece.sha256]
    return Verified(snapshot, manifest, (*manifest.failures, *wrong))


def check(config: Config, say: Say, *, wait_s: float = 0.0, every: bool = False) -> Checked:
    """Check the repository, and read this week's part of its data or all of it.

    Record the result in the status file.
    """
    with working(config, say, wait_s=wait_s) as work:
        began_at, began = time.time(), time.monotonic()

        def leave(result: Run) -> None:
            record(config.state, "check", result)

        try:
            checked = _check(work, every=every)
        except Exception as error:
            seconds = time.monotonic() - began
            leave(Run(attempted_at=began_at, result="failed", duration_s=seconds, detail=str(error)))
            raise
        seconds = time.monotonic() - began
        leave(Run(attempted_at=began_at, result="ok", duration_s=seconds, detail=checked.share))
        return checked


def prune(config: Config, say: Say, *, wait_s: float = 0.0) -> None:
    """Delete expired sets by the retention settings, and free the data that no set uses."""
    if config.append_only:
        raise BackupError(
            f"The repository of '{config.name}' is append-only: the environment's login deletes nothing; run `plinth "
            "backup prune` with --login and a file of a login that may."
        )
    with working(config, say, wait_s=wait_s) as work:
        restic = Restic(work)
        _refuse_future_sets(restic.open_and_list())
        say("letting old sets go")
        restic.forget(config.keep)
        say("freeing their room")
        restic.prune()


def _refuse_future_sets(snapshots: Sequence[Snapshot]) -> None:
    """Refuse sets with a future date: retention counts from the newest one, and would delete all the others."""
    ahead = [snapshot for snapshot in snapshots if snapshot.at > time.time() + CLOCK_SKEW_S]
    if ahead:
        when = datetime.fromtimestamp(ahead[-1].at, UTC)
        raise BackupError(
            f"Set {ahead[-1].short} is dated {when:%Y-%m-%d %H:%M} UTC, which is still to come; nothing was removed. "
            f"Find out which machine wrote it, and remove it first: `restic forget {ahead[-1].short}`."
        )


def part_of(now: datetime, parts: int) -> int:
    """Return the part of the data that a check reads: one each week, so that ``parts`` weeks read everything."""
    return now.isocalendar().week % parts + 1


def _check(work: Work, *, every: bool) -> Checked:
    restic = Restic(work)
    restic.open()
    parts = 1 if every else work.config.schedule.check_parts
    part = part_of(datetime.now(UTC), parts)
    data = f"part {part} of {parts} of its data" if parts > 1 else "all of its data"
    work.say(f"checking the repository, and reading {data}")
    return Checked(part, parts, restic.check(part, parts))


def _manifest_or_none(restic: Restic, snapshot: Snapshot) -> Manifest | None:
    try:
        return manifest_of(restic, snapshot)
    except BackupError:
        return None
