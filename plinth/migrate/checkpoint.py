"""The position of a migration, written after the server has acknowledged the points, so that a kill loses nothing."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from plinth.errors import UserError
from plinth.migrate.digest import added
from plinth.migrate.model import Key, Position
from plinth.system.atomic_files import write_whole

FORMAT = 1


@dataclass(frozen=True)
class Rejected:
    """A row that cannot become a point, and the reason."""

    key: Key
    reason: str


@dataclass(frozen=True)
class Progress:
    """The position of the reader: all rows up to ``last`` are written or rejected.

    ``digest`` covers the written ones.
    """

    last: Position | None = None
    read: int = 0
    written: int = 0
    rejected: int = 0
    digest: int = 0
    ended: bool = False

    def after(self, last: Position, written: int, rejected: int, digest: int) -> Progress:
        """Return the progress after one more page."""
        return replace(
            self,
            last=last,
            read=self.read + written + rejected,
            written=self.written + written,
            rejected=self.rejected + rejected,
            digest=added(self.digest, digest),
        )


@dataclass(frozen=True)
class Checkpoint:
    """One migration. ``plan`` and ``identity`` must be the same when it is resumed.

    ``source`` opens the source again (it holds no secret); ``before`` is the number of points that the collection had,
    and ``graph`` the HNSW settings to restore at the end, where building was deferred.
    """

    plan: Mapping[str, Any]
    identity: Mapping[str, Any]
    source: Mapping[str, Any]
    rows: int
    before: int
    graph: Mapping[str, Any] | None = None
    progress: Progress = field(default_factory=Progress)
    rejects_bytes: int = 0
    verdict: str | None = None


class State:
    """The directory of one migration: ``checkpoint.json``, ``rejects.jsonl``, ``report.json``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rejects = directory / "rejects.jsonl"
        self.report = directory / "report.json"
        self._file = directory / "checkpoint.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the directory within the block; raises :class:`UserError` if another process holds it."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle = (self.directory / "lock").open("w")
        except OSError as error:
            raise unwritable(self.directory, error) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"Another migration works in {self.directory}; wait until it has ended, or name another --state.",
                    exit_code=1,
                ) from None
            yield

    def load(self) -> Checkpoint | None:
        """Read the last checkpoint, or None."""
        try:
            document = json.loads(self._file.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"{self._file} cannot be read ({error}); put it back, or begin anew: --restart.") from error
        if document.pop("format", None) != FORMAT:
            raise UserError(f"{self._file} is of another version of Plinth; finish with that one, or use --restart.")
        found = {known.name: document[known.name] for known in fields(Checkpoint)}
        progress = {**found["progress"], "digest": int(found["progress"]["digest"], 16)}
        return Checkpoint(**{**found, "progress": Progress(**progress)})

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint atomically."""
        document = asdict(checkpoint)
        document["progress"]["digest"] = f"{checkpoint.progress.digest:x}"
        _write(self._file, {"format": FORMAT, **document})

    def save_report(self, document: Mapping[str, Any]) -> None:
        """Write the result of the comparison next to the checkpoint."""
        _write(self.report, document)

    def reject(self, rejected: Sequence[Rejected], at: int) -> int:
        """Write rows at an offset, over what a killed run has written after it; returns the new offset."""
        if not rejected:
            return at
        text = "".join(json.dumps({"key": row.key, "reason": row.reason}) + "\n" for row in rejected).encode()
        try:
            with os.fdopen(os.open(self.rejects, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
                file.truncate(at)
                file.seek(at)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.rejects, error) from error
        return at + len(text)

    def clear(self) -> None:
        """Delete the checkpoint; the points that were written stay."""
        for path in (self._file, self.rejects, self.report):
            path.unlink(missing_ok=True)


def hashed(document: Mapping[str, Any]) -> str:
    """Return the hash of a plan, computed from its canonical JSON."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def require_same(found: Checkpoint, plan: Mapping[str, Any], identity: Mapping[str, Any], where: Path) -> None:
    """Refuse to resume with another plan or another source, naming what differs."""
    for kind, then, now in (("plan", found.plan, plan), ("source", found.identity, identity)):
        if hashed(then) == hashed(now):
            continue
        keys = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
        said = "; ".join(f"{key} was {then.get(key)!r} and is {now.get(key)!r}" for key in keys)
        raise UserError(
            f"The {kind} is not the one of the checkpoint in {where}: {said}. Go on with the old one, or begin anew "
            "with --restart (the points that are written stay, and are written over).",
            exit_code=1,
        )


def unwritable(path: Path, error: OSError) -> UserError:
    """Return the error for a disk that cannot be written, with what to do."""
    return UserError(
        f"{path} cannot be written: {error.strerror}; make room or name another place with --state, and run the same "
        "command again: it goes on where the last acknowledged write was.",
        exit_code=1,
    )


def _write(path: Path, document: Mapping[str, Any]) -> None:
    try:
        write_whole(path, json.dumps(document, indent=1))
    except OSError as error:
        raise unwritable(path, error) from error
