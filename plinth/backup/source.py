"""What a restore reads: the wish, the set's files, and a record of what it has made so far."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from plinth import beneath
from plinth.backup.folder import fetch_folder
from plinth.backup.manifest import Manifest, Piece
from plinth.backup.restic import Restic
from plinth.backup.restic_output import Snapshot
from plinth.backup.work import BackupError, Work
from plinth.files import write_whole

STORES = ("postgres", "qdrant", "redis", "neo4j", "grafana")


# Bytes of a database's name; Postgres cuts off what is beyond, in silence.
LONGEST = 63
# What a restore records of what it makes.
BEGUN, DONE = "begun", "done"
RECORD = "made.json"
# From this share of a folder on it is fetched as a whole.
SHARE_OF_FOLDER = 0.75


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


class Turns:
    """The order in which stores that are restored at the same time take their live names."""

    def __init__(self, stores: Sequence[str] = ()) -> None:
        self._stores = tuple(stores)
        self._results: dict[str, Future[None]] = {store: Future() for store in stores}

    def end(self, store: str, error: BaseException | None = None) -> None:
        """A store has taken them, or has failed."""
        if error is None:
            self._results[store].set_result(None)
        else:
            self._results[store].set_exception(error)

    def wait(self, store: str) -> None:
        """Wait until those before a store have ended; raises :class:`BackupError` where one of them failed."""
        before = self._stores[: self._stores.index(store)] if store in self._stores else ()
        for other in before:
            if self._results[other].exception() is not None:
                raise BackupError(f"{store} was not put in its place, for {other} was not restored.")


class Source:
    """A set whose files are fetched once. A restore that is run again finds those that came whole, and what it made."""

    def __init__(self, work: Work, restic: Restic, snapshot: Snapshot, manifest: Manifest, target: str) -> None:
        self.work, self.snapshot, self.manifest = work, snapshot, manifest
        self._restic = restic
        self._target = target
        self._directory = work.fetched / f"{snapshot.short}-{target}"
        self._record = self._directory / RECORD
        self._recording = threading.Lock()
        self._turns = Turns()
        self._fetched: set[str] = set()

    def fetch_folder(self, folder: str, paths: Collection[str]) -> None:
        """Fetch some files of a folder at once, where they are most of it and none is here yet."""
        within = [piece for piece in self.manifest.pieces if piece.path.startswith(f"{folder}/")]
        chosen = [piece for piece in within if piece.path in paths]
        share = sum(piece.size for piece in chosen), sum(piece.size for piece in within)
        if len(chosen) < 2 or share[0] < SHARE_OF_FOLDER * share[1] or any(map(self.is_here, paths)):
            return
        self.work.say(f"fetching {folder}")
        for piece in chosen:
            beneath.remove(self._directory, piece.path)

        def open_file(path: str) -> BinaryIO | None:
            return beneath.create(self._directory, path) if path in paths else None

        digests = fetch_folder(self._restic, self.snapshot, folder, within, open_file)
        for piece in chosen:
            if digests.get(piece.path) == piece.sha256:
                self._fetched.add(piece.path)
            else:
                # Tried once more by itself, and refused there.
                beneath.remove(self._directory, piece.path)

    def fetch(self, path: str) -> tuple[Path, Piece]:
        """A file of the set, compared with its checksum."""
        piece = self.manifest.piece(path)
        to = self._directory / path
        if self.is_here(path) and (path in self._fetched or self._is_as_saved(piece)):
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

    def await_turn(self, store: str) -> None:
        """Wait until the stores before have taken their live names; raises where one did not come to that."""
        self._turns.wait(store)

    def taking_turns(self, stores: Sequence[str]) -> Turns:
        """Have these stores wait for each other in this order."""
        self._turns = Turns(stores)
        return self._turns

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
        with self._recording:
            write_whole(self._record, json.dumps(self.made() | {name: word}))

    def beside(self, name: str) -> str:
        """A name of this set's own for what is called ``name``; no two share one."""
        mark = f"__{self.snapshot.short}"
        return f"{shortened(name, LONGEST - len(mark))}{mark}"

    def forget(self) -> None:
        """Remove what was fetched and recorded for this target, of other sets too: this one has taken their place."""
        for each in self.work.fetched.glob(f"*-{self._target}"):
            shutil.rmtree(each, ignore_errors=True)
