"""What a restore reads: the wish, the set's files, and a record of what it has made so far."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from plinth import beneath
from plinth.backup.manifest import Manifest, Piece
from plinth.backup.restic import Restic, Snapshot
from plinth.backup.work import BackupError, Work
from plinth.files import write_whole

STORES = ("postgres", "qdrant", "redis", "neo4j", "grafana")


# Bytes of a database's name; Postgres cuts off what is beyond, in silence.
LONGEST = 63
# What a restore records of what it makes.
BEGUN, DONE = "begun", "done"
RECORD = "made.json"


@dataclass(frozen=True)
class Wish:
    """What to restore, and what may happen to what is there.

    ``replace``: the restored data takes the live one's name. ``beside``: it stays under a name of its own. With neither
    it only goes where nothing is.
    """

    snapshot: str | None = None
    stores: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    replace: bool = False
    beside: bool = False
    incomplete: bool = False


def shortened(name: str, most: int) -> str:
    """A name of at most so many bytes; two that begin alike stay two."""
    if len(name.encode()) <= most:
        return name
    mark = f"_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{name.encode()[: most - len(mark)].decode(errors='ignore')}{mark}"


def begun(fetched: Path, target: str) -> list[str]:
    """The sets of which a restore into a target has made something and has not ended."""
    return sorted(record.parent.name.partition("-")[0] for record in fetched.glob(f"*-{target}/{RECORD}"))


class Source:
    """A set whose files are fetched once. A restore that is run again finds those that came whole, and what it made."""

    def __init__(self, work: Work, restic: Restic, snapshot: Snapshot, manifest: Manifest, target: str) -> None:
        self.work, self.snapshot, self.manifest = work, snapshot, manifest
        self._restic = restic
        self._target = target
        self._directory = work.fetched / f"{snapshot.short}-{target}"
        self._record = self._directory / RECORD

    def fetch(self, path: str) -> tuple[Path, Piece]:
        """A file of the set, compared with its checksum."""
        piece = self.manifest.piece(path)
        to = self._directory / path
        if self.is_here(path) and self._is_as_saved(piece):
            return to, piece
        beneath.remove(self._directory, path)
        self.work.say(f"fetching {path}")
        with beneath.create(self._directory, path) as file:
            fetched = self._restic.fetch(self.snapshot, piece, file)
        if fetched != piece.sha256:
            beneath.remove(self._directory, path)
            raise BackupError(
                f"{path} of set {self.snapshot.short} is not what was saved; see `plinth backup verify`, or take "
                "another set with --snapshot."
            )
        return to, piece

    def is_here(self, path: str) -> bool:
        """Whether a file was fetched before, by its size."""
        try:
            with beneath.read(self._directory, path) as file:
                return os.fstat(file.fileno()).st_size == self.manifest.piece(path).size
        except OSError:
            return False

    def _is_as_saved(self, piece: Piece) -> bool:
        with beneath.read(self._directory, piece.path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == piece.sha256

    def made(self) -> dict[str, str]:
        """What this restore has begun or done, by name; of an earlier run too that was killed."""
        try:
            found: dict[str, str] = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def making(self, name: str, word: str) -> None:
        """Record a step before it is taken, or that it is done."""
        self._directory.mkdir(parents=True, exist_ok=True)
        write_whole(self._record, json.dumps(self.made() | {name: word}))

    def beside(self, name: str) -> str:
        """A name of this set's own for what is called ``name``; no two share one."""
        mark = f"__{self.snapshot.short}"
        return f"{shortened(name, LONGEST - len(mark))}{mark}"

    def forget(self) -> None:
        """Remove what was fetched and recorded for this target, of other sets too: this one has taken their place."""
        for each in self.work.fetched.glob(f"*-{self._target}"):
            shutil.rmtree(each, ignore_errors=True)
