"""What is in the repository, and whether it can be trusted: list, verify, check, prune."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from plinth.backup.config import Config
from plinth.backup.manifest import NAME, Manifest, differences, parse
from plinth.backup.restic import Restic, Snapshot
from plinth.backup.state import Run, record
from plinth.backup.take import newest
from plinth.backup.work import BackupError, Say, Work, working

# How far the clocks of two machines may differ.
CLOCK_SKEW_S = 3600.0


@dataclass(frozen=True)
class Set:
    """A set of the repository with its manifest; None where this version cannot read it."""

    snapshot: Snapshot
    manifest: Manifest | None


@dataclass(frozen=True)
class Verified:
    """A set that was read whole; ``problems`` are sentences."""

    snapshot: Snapshot
    manifest: Manifest
    problems: tuple[str, ...]


def sets(config: Config, say: Say) -> list[Set]:
    """Every set, newest first."""
    with working(config, say) as work:
        restic = Restic(work)
        if not restic.is_there():
            return []
        return [Set(snapshot, _manifest_or_none(restic, snapshot)) for snapshot in reversed(restic.snapshots())]


def manifest_of(restic: Restic, snapshot: Snapshot) -> Manifest:
    """The manifest of a set."""
    return parse(restic.manifest(snapshot), f"set {snapshot.short}")


def verify(config: Config, say: Say, wanted: str | None = None) -> Verified:
    """Check the repository, then read every byte of a set and compare it with its manifest."""
    with working(config, say) as work:
        restic = Restic(work)
        restic.open()
        snapshot = newest(restic, wanted, incomplete=True)
        say("checking the repository")
        restic.check()
        manifest = manifest_of(restic, snapshot)
        listed = restic.listed(snapshot)
        listed.pop(NAME, None)
        wrong = differences(listed, manifest.pieces)
        for piece in manifest.pieces:
            if piece.path not in listed:
                continue
            say(f"reading {piece.path}")
            if restic.fetch(snapshot, piece, None) != piece.sha256:
                wrong.append(f"{piece.path} is not what was saved")
        return Verified(snapshot, manifest, (*manifest.failures, *wrong))


def check(config: Config, say: Say, *, wait_s: float = 0.0) -> None:
    """Check the repository, and read this week's part of its data; the result goes to the state's file."""
    with working(config, say, wait_s=wait_s) as work:
        began_at, began = time.time(), time.monotonic()

        def leave(result: Run) -> None:
            record(config.state, "check", result)

        try:
            _check(work)
        except Exception as error:
            seconds = time.monotonic() - began
            leave(Run(attempted_at=began_at, result="failed", duration_s=seconds, detail=str(error)))
            raise
        leave(Run(attempted_at=began_at, result="ok", duration_s=time.monotonic() - began))


def prune(config: Config, say: Say) -> None:
    """Let old sets go by the settings' retention, and free what no set needs."""
    if config.append_only:
        raise BackupError(
            f"The repository of '{config.name}' is append-only: the environment's login deletes nothing; run `plinth "
            "backup prune` with --login and a file of a login that may."
        )
    with working(config, say) as work:
        restic = Restic(work)
        restic.open()
        _refuse_future_sets(restic.snapshots())
        say("letting old sets go")
        restic.forget(config.keep)
        say("freeing their room")
        restic.prune()


def _refuse_future_sets(snapshots: Sequence[Snapshot]) -> None:
    """Refuse where a set is dated ahead: retention counts from the newest, and would remove all the true ones."""
    ahead = [snapshot for snapshot in snapshots if snapshot.at > time.time() + CLOCK_SKEW_S]
    if ahead:
        when = datetime.fromtimestamp(ahead[-1].at, UTC)
        raise BackupError(
            f"Set {ahead[-1].short} is dated {when:%Y-%m-%d %H:%M} UTC, which is still to come; nothing was removed. "
            f"Find out which machine wrote it, and remove it first: `restic forget {ahead[-1].short}`."
        )


def part_of(now: datetime, parts: int) -> int:
    """Which part of the data a check reads: by the week, so that so many weeks read everything."""
    return now.isocalendar().week % parts + 1


def _check(work: Work) -> None:
    restic = Restic(work)
    restic.open()
    parts = work.config.schedule.check_parts
    part = part_of(datetime.now(UTC), parts)
    work.say(f"checking the repository, and reading part {part} of {parts}")
    restic.check(part, parts)


def _manifest_or_none(restic: Restic, snapshot: Snapshot) -> Manifest | None:
    try:
        return manifest_of(restic, snapshot)
    except BackupError:
        return None
