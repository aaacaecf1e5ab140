"""The audit log (BR-008): one JSON line for each operation, refusals among them, and never what it was about.

No vector, payload, text, filter or token is in a line. A line that cannot be written is counted; where the audit is
required, operations are refused until lines can be written again.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from plinth.gateway.caller import Caller
from plinth.gateway.errors import ErrorKind, GatewayError

log = logging.getLogger("plinth.gateway.audit")
NAME_MAX = 255
# A file that is full is renamed; so many of them are kept.
FILE_MAX_BYTES, FILES_MAX = 64 * 2**20, 8
# The outcome of an operation that its caller did not wait for.
CANCELLED = "CANCELLED"
# A caller's clock runs out before ours, by the way that the request took.
TRANSIT_S = 0.1


def abandoned(deadline: float) -> str:
    """The outcome of an operation whose caller has gone. ``deadline`` is theirs, a time of :func:`time.monotonic`."""
    passed = time.monotonic() >= deadline - TRANSIT_S
    return ErrorKind.deadline_exceeded.value if passed else CANCELLED


@dataclass(frozen=True)
class AuditRecord:
    """One operation. ``count`` is how many points it was about, ``outcome`` OK, the kind of its error, or CANCELLED."""

    operation: str
    request_id: str
    caller: Caller | None
    collection: str | None
    count: int
    outcome: str
    duration_ms: float
    protocol: str

    def to_line(self, at: datetime) -> bytes:
        """The line, with its end."""
        content = {
            "time": at.isoformat(),
            "operation": self.operation,
            "org_id": self.caller.organisation if self.caller else None,
            "user_id": self.caller.user if self.caller else None,
            # A name that was refused may be as long as a request.
            "collection": self.collection[:NAME_MAX] if self.collection is not None else None,
            "count": self.count,
            "outcome": self.outcome,
            "duration_ms": round(self.duration_ms, 3),
            "request_id": self.request_id,
            "protocol": self.protocol,
        }
        return orjson.dumps(content, default=str, option=orjson.OPT_APPEND_NEWLINE)


class AuditLog:
    """A file that lines are appended to, or standard output where none is named."""

    def __init__(self, path: Path | None = None, *, required: bool = False) -> None:
        self._path = path
        self._required = required
        self._descriptor: int | None = None
        self._size = 0
        self._broken = False
        self.failures = 0

    def admit(self) -> None:
        """Raise where the audit is required and the last line could not be written."""
        if self._required and self._broken and not self._probe():
            raise GatewayError(ErrorKind.unavailable, "the audit log cannot be written", retry_after_s=5)

    def write(self, record: AuditRecord) -> None:
        """Append a line; a failure is counted and stops nothing here."""
        self._append(record.to_line(datetime.now(UTC)))

    def _probe(self) -> bool:
        return self._append(b"")

    def _append(self, line: bytes) -> bool:
        try:
            if self._size > FILE_MAX_BYTES:
                self._rotate()
            written = os.write(self._opened(), line)
            self._size += written
            if written != len(line):
                raise OSError(f"{written} of {len(line)} bytes were written")
        except (OSError, UnicodeError) as error:
            self.failures += 1
            if not self._broken:
                log.error("the audit log cannot be written: %r", error)
            self._broken = True
            self._close()
            return False
        self._broken = False
        return True

    def _opened(self) -> int:
        if self._path is None:
            return 1
        if self._descriptor is None or not self._is_current():
            self._close()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o640)
            self._size = os.fstat(self._descriptor).st_size
        return self._descriptor

    def _rotate(self) -> None:
        """Rename the file to `.1`, that to `.2`, and so on; the oldest goes."""
        self._close()
        self._size = 0
        # Another process may have renamed it just now.
        if self._path is None or not self._path.exists() or self._path.stat().st_size <= FILE_MAX_BYTES:
            return
        for number in range(FILES_MAX - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path.with_name(f"{self._path.name}.{number - 1}") if number > 1 else self._path
            if newer.exists():
                newer.replace(older)

    def _is_current(self) -> bool:
        """Whether the file that is open is still the one of that name: whoever rotates it renames it."""
        if self._path is None or self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.lstat())
        except OSError:
            return False

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
