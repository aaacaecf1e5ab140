"""How old the last good backup may be, and the last backup, check and drill as `plinth status` shows them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cronsim import CronSim

from plinth.status_files.backup_runs import KINDS, Kind, Run, State
from plinth.system.timestamps import date

# How long a backup may take after it is due, on a schedule that is rarer than the promised age.
LATE_S = 7200.0


@dataclass(frozen=True)
class BackupStatus:
    """The last runs of the backup jobs. ``problem`` is a message where they make an environment not ready."""

    state: State
    problem: str | None = None

    def to_json(self, now: float | None = None) -> dict[str, Any]:
        """Return the last backup, check and drill with their ages in seconds.

        The age is null for a job that never ran, and for a time in the future.
        """
        moment = time.time() if now is None else now
        timely, ahead = self.state.as_of(moment), self.state.ahead(moment)
        runs: dict[str, Run | None] = {kind: getattr(timely, kind) for kind in KINDS}
        return {
            **{kind: run and {**run.model_dump(), "age_s": _age_s(run, moment)} for kind, run in runs.items()},
            "problem": self.problem,
            **({"ahead_of_clock": ahead} if ahead else {}),
        }

    def rows(self, now: float | None = None) -> Iterator[tuple[str, str, str, str]]:
        """Yield kind, result, age of the last good run and remarks of each job."""
        moment = time.time() if now is None else now
        timely, ahead = self.state.as_of(moment), self.state.ahead(moment)
        for kind in KINDS:
            run: Run | None = getattr(timely, kind)
            notes = [_is_ahead(kind, ahead[kind])] if kind in ahead else []
            if run is None:
                yield kind, "never ran", "", " ".join(notes)
                continue
            since = "none good yet" if run.succeeded_at is None else f"last good {_old(run.succeeded_at, moment)} ago"
            result = run.result if run.result == "ok" else run.result.upper()
            yield kind, result, since, " ".join(filter(None, [*notes, run.detail]))


def problem(state: State, schedule: str, promised_h: float, now: float) -> str | None:
    """Return why an environment cannot rely on its backups; None where it can, and before the first one is due."""
    run, ahead = state.as_of(now).backup, state.ahead(now)
    if run is None:
        return _is_ahead("backup", ahead["backup"]) if "backup" in ahead else None
    if run.succeeded_at is None:
        return f"no backup was good yet{f': {run.detail}' if run.detail else ''}"
    due = next(CronSim(schedule, datetime.fromtimestamp(run.succeeded_at, UTC))).timestamp()
    limit = max(promised_h * 3600, due - run.succeeded_at + LATE_S)
    if now - run.succeeded_at <= limit:
        return None
    reason = f": {run.detail}" if run.result != "ok" and run.detail else ""
    return f"the last good backup is {_old(run.succeeded_at, now)} old, and {_length(limit)} are allowed{reason}"


def _is_ahead(kind: Kind, at: float) -> str:
    return f"the last {kind} is dated {date(at)}, ahead of this clock: it counts as none, and one is due now"


def _age_s(run: Run, now: float) -> float | None:
    """Return the seconds since the last good run, or None without one."""
    return None if run.succeeded_at is None else round(max(now - run.succeeded_at, 0), 1)


def _old(at: float, now: float) -> str:
    return _length(max(now - at, 0))


def _length(seconds: float) -> str:
    """Format a duration in a readable unit."""
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} d"
