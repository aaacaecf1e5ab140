"""The status of backups for monitoring: one small JSON file, written by backups and read by the exporter.

    {"version": 1,
     "backup": {"attempted_at": 1795249337.0, "succeeded_at": 1795249337.0, "result": "ok", "duration_s": 12.5,
                "size_bytes": 1048576, "stores": {"qdrant": "ok", "postgres": "ok"}, "detail": ""},
     "check": {...}, "drill": {...}}

Times are Unix seconds. `result` is `ok`, `incomplete` (a part is missing) or `failed`; `succeeded_at` is the last time
that it was `ok`, and survives later failures. A kind that never ran is absent. `detail` is a sentence without a secret.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError

from plinth.errors import UserError
from plinth.system import beneath
from plinth.system.atomic_files import OF_GROUP, write_whole
from plinth.system.strict_model import StrictModel
from plinth.system.timestamps import past

FILE = "backups.json"
LARGEST = 1 << 20
Result = Literal["ok", "incomplete", "failed"]
Kind = Literal["backup", "check", "drill"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class StateUnreadable(UserError):
    """The status file exists and cannot be parsed."""


class Run(StrictModel):
    """The last run of a kind."""

    attempted_at: float = Field(ge=0)
    succeeded_at: float | None = Field(None, ge=0)
    result: Result
    duration_s: float = Field(ge=0)
    size_bytes: int | None = Field(None, ge=0)
    stores: dict[str, Result] = Field(default_factory=dict)
    detail: str = ""


class State(StrictModel):
    """The last backup, the last check of the repository, the last restore drill."""

    version: Literal[1] = 1
    backup: Run | None = None
    check: Run | None = None
    drill: Run | None = None

    def ahead(self, now: float) -> dict[Kind, float]:
        """Return the kinds that have a time ahead of the clock, each with its latest."""
        found: dict[Kind, float] = {}
        for kind in KINDS:
            run: Run | None = getattr(self, kind)
            moments = (run.attempted_at, run.succeeded_at or 0.0) if run else ()
            if any(past(moment, now) is None for moment in moments):
                found[kind] = max(moments)
        return found

    def as_of(self, now: float) -> State:
        """Return the status without times ahead of the clock; a run that has no other time is dropped."""
        return self.model_copy(update={kind: _as_of(getattr(self, kind), now) for kind in self.ahead(now)})


def _as_of(run: Run, now: float) -> Run | None:
    succeeded_at = past(run.succeeded_at, now)
    attempted_at = past(run.attempted_at, now)
    attempted_at = succeeded_at if attempted_at is None else attempted_at
    if attempted_at is None:
        return None
    return run.model_copy(update={"attempted_at": attempted_at, "succeeded_at": succeeded_at})


def read(path: Path) -> State:
    """Read the status file; empty when the file is missing. Raises :class:`StateUnreadable`."""
    try:
        with beneath.read(path.parent, path.name) as file:
            return parse(file.read(LARGEST), str(path))
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise _unreadable(str(path), error.strerror) from error


def parse(text: bytes, where: str) -> State:
    """Parse the content of a status file; raises :class:`StateUnreadable` naming ``where``, its source."""
    try:
        return State.model_validate_json(text)
    except ValidationError as error:
        raise _unreadable(where, "it is not what this version writes") from error


def _unreadable(where: str, reason: str | None) -> StateUnreadable:
    return StateUnreadable(f"{where} cannot be read ({reason}); run a backup to have it written anew.")


def record(path: Path, kind: Kind, run: Run) -> None:
    """Write a run's result atomically; the time of the last success stays when this run failed."""
    try:
        state = read(path)
    except StateUnreadable:
        state = State()
    ended = run.attempted_at + run.duration_s
    before: Run | None = getattr(state.as_of(ended), kind)
    succeeded_at = ended if run.result == "ok" else before.succeeded_at if before else None
    state = state.model_copy(update={kind: run.model_copy(update={"succeeded_at": succeeded_at})})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, state.model_dump_json(indent=2, exclude_none=True), OF_GROUP)
