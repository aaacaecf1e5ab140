"""Parse the output of restic: sets, packs, and the error messages of versions without exit codes for them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from plinth.backup.session import Done

COMPLETE, INCOMPLETE = "complete", "incomplete"
NO_REPOSITORY, LOCKED, WRONG_PASSWORD = 10, 11, 12
_ABSENT = re.compile(
    r"unable to open config file: ((stat|lstat) .*(no such file|does not exist)|<config/> does not exist)"
    r"|The specified key does not exist"
    r"|Fatal: repository does not exist",
    re.IGNORECASE | re.DOTALL,
)
_WRONG_PASSWORD = re.compile(r"wrong password or no key found", re.IGNORECASE)
_LOCKED = re.compile(r"repository is already locked|unable to create lock", re.IGNORECASE)
_HOLDER = re.compile(r"already locked (?:exclusively )?by PID (\d+) on (\S+)", re.IGNORECASE)
_PACKS = re.compile(r"of (\d+) data packs \(out of total (\d+) packs")
# Anyone with the password may have written the text of a snapshot: it must be an argument and never an option.
_ID, _STAGED = re.compile(r"[0-9a-f]{64}"), re.compile(r"/[^\x00-\x1f\x7f]*")


@dataclass(frozen=True)
class Snapshot:
    """A set in the repository. ``path`` is its staging directory, which is also its path within the snapshot."""

    id: str
    at: float
    path: str
    complete: bool

    @property
    def short(self) -> str:
        """Return the short id that is shown to people."""
        return self.id[:8]


def is_absent(done: Done, version: tuple[int, int]) -> bool:
    """Whether restic failed because there is no repository."""
    return done.code == NO_REPOSITORY if version >= (0, 17) else bool(_ABSENT.search(done.err))


def is_wrong_password(done: Done) -> bool:
    """Whether restic failed because the password is wrong."""
    return done.code == WRONG_PASSWORD or bool(_WRONG_PASSWORD.search(done.err))


def packs_read(done: Done) -> str:
    """Return how much a check reports as read, or an empty text."""
    packs = _PACKS.search(done.out)
    return f"{packs[1]} of {packs[2]} packs" if packs else ""


def is_locked(done: Done) -> bool:
    """Whether restic failed because the repository is locked."""
    return done.code == LOCKED or (done.code != 0 and bool(_LOCKED.search(done.err)))


def lock_holder(done: Done) -> str:
    """Return the process and the machine that hold the lock, or `another machine` where restic does not say."""
    known = _HOLDER.search(done.err)
    return f"pid {known[1]} on {known[2]}" if known else "another machine"


def json_lines(done: Done) -> list[dict[str, Any]]:
    """Return the JSON documents that restic prints, one per line."""
    found = []
    for line in done.out.splitlines():
        try:
            parsed = json.loads(line)
        except ValueError:
            continue  # a warning among the lines
        if isinstance(parsed, dict):
            found.append(parsed)
    return found


def snapshot_of(entry: Mapping[str, Any]) -> Snapshot | None:
    """Return a set from the repository's listing, or None for one that no version of Plinth has stored."""
    try:
        at = datetime.fromisoformat(_whole_microseconds(entry["time"])).timestamp()
        found = Snapshot(entry["id"], at, entry["paths"][0], COMPLETE in entry.get("tags", ()))
    except (LookupError, TypeError, ValueError, OverflowError):
        return None
    return found if _ID.fullmatch(found.id) and _STAGED.fullmatch(found.path) else None


def _whole_microseconds(time: str) -> str:
    """Convert an RFC 3339 time with nanoseconds, as Go writes it, to one that Python can parse."""
    return re.sub(r"(\.\d{1,6})\d*", r"\1", time)


def damage(done: Done) -> str:
    """Return the findings of a check, as restic reports them."""
    lines = [line.strip() for line in f"{done.err}\n{done.out}".splitlines()]
    told = [line for line in lines if re.search(r"error|pack|blob|missing|damaged|corrupt", line, re.IGNORECASE)]
    return " / ".join((told or lines)[:3])
