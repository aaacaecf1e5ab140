"""The input of a restore: the request, the files of the set, and a journal of what the restore has created."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from plinth.backup.manifest import Collection, Manifest, Piece
from plinth.backup.repository.restic import Restic
from plinth.backup.repository.restic_output import Snapshot
from plinth.backup.session import BackupError, Work
from plinth.system import beneath
from plinth.system.atomic_files import write_whole

STORES = ("postgres", "qdrant", "redis", "neo4j", "grafana")


# Maximum bytes of a database name; Postgres truncates longer ones silently.
LONGEST = 63
# The journal states of what a restore creates.
BEGUN, DONE = "begun", "done"
RECORD = "made.json"
# The number of files per start of restic: their paths are its arguments.
MOST_AT_ONCE = 1000
# The directory that restic writes into; complete files are moved out of it.
COMING = ".coming-"
# The disk space of a file beyond its bytes.
SPARE = 16 << 20


@dataclass(frozen=True)
class Wish:
    """What to restore, and what may happen to existing data.

    ``replace``: the restored data takes the live name. ``beside``: it stays as a copy under its own name. With neither,
    a restore only writes where nothing exists.
    """

    snapshot: str | None = None
    stores: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    replace: bool = False
    beside: bool = False
    incomplete: bool = False


def shortened(name: str, most: int) -> str:
    """Shorten a name to ``most`` bytes; two names with the same start stay different."""
    if len(name.encode()) <= most:
        return name
    mark = f"_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{name.encode()[: most - len(mark)].decode(errors='ignore')}{mark}"


def _size(directory: Path) -> int:
    """Return the bytes of the files below a directory, ignoring those that vanish during the count."""
    total = 0
    for path in directory.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_blocks * 512
    return total


def begun(fetched: Path, target: str) -> list[str]:
    """Return the sets of which a restore into a target was started and did not end."""
    return sorted(record.parent.name.partition("-")[0] for record in fetched.glob(f"*-{target}/{RECORD}"))


class Turns:
    """The order in which stores that are restored in parallel take their live names."""

    def __init__(self, stores: Sequence[str] = ()) -> None:
        self._stores = tuple(stores)
        self._results: dict[str, Future[None]] = {store: Future() for store in stores}

    def end(self, store: str, error: BaseException | None = None) -> None:
        """Mark a store as done with its live names, or as failed."""
        if error is None:
            self._results[store].set_result(None)
        else:
            self._results[store].set_exception(error)

    def wait(self, store: str) -> None:
        """Wait until the stores before this one have ended. Raises :class:`BackupError` where one of them failed."""
        before = self._stores[: self._stores.index(store)] if store in self._stores else ()
        for other in before:
            if self._results[other].exception() is not None:
                raise BackupError(f"{store} was not put in its place, for {other} was not restored.")


class Source:
    """A set whose files are fetched once. A repeated restore reuses complete files and what it created before."""

    def __init__(self, work: Work, restic: Restic, snapshot: Snapshot, manifest: Manifest, target: str) -> None:
        self.work, self.snapshot, self.manifest = work, snapshot, manifest
        self._restic = restic
        self._target = target
        self._directory = work.fetched / f"{snapshot.short}-{target}"
        self._record = self._directory / RECORD
        self._recording = threading.Lock()
        self._turns = Turns()
        self._coming: dict[str, Future[None]] = {}
        self._whole: set[str] = set()
        self._is_over = threading.Event()
        for left in self._directory.glob(f"{COMING}*"):
            shutil.rmtree(left, ignore_errors=True)

    @contextmanager
    def fetching(self, *groups: Sequence[str]) -> Iterator[None]:
        """Run restic in the block to write files of the set, one group after the other.

        :meth:`fetch` waits for files that are still to come, and reads incomplete ones itself.
        """
        with ThreadPoolExecutor(1) as pool:
            for group in groups:
                self._coming |= dict.fromkeys(group, pool.submit(self._fetch_group, group))
            try:
                yield
            finally:
                self._is_over.set()
                pool.shutdown(cancel_futures=True)

    def _fetch_group(self, paths: Sequence[str]) -> None:
        missing = [self.manifest.piece(path) for path in paths if not self.is_here(path)]
        self._directory.mkdir(parents=True, exist_ok=True)
        for first in range(0, len(missing), MOST_AT_ONCE):
            some = missing[first : first + MOST_AT_ONCE]
            folders = dict.fromkeys(piece.path.partition("/")[0] for piece in some)
            self.work.say(f"fetching {', '.join(folders)}")
            with TemporaryDirectory(prefix=COMING, dir=self._directory, ignore_cleanup_errors=True) as directory:
                self._restore(some, Path(directory))

    def _restore(self, pieces: Sequence[Piece], directory: Path) -> None:
        most = sum(piece.size for piece in pieces) + SPARE

        def is_over() -> bool:
            return self._is_over.is_set() or _size(directory) > most

        paths = [piece.path for piece in pieces]
        done = self._restic.restore(self.snapshot, paths, directory, is_over)
        if done.code < 0:
            return
        if done.code > 0:
            # restic may fail to set an attribute that this account may not set: the file is compared like every other.
            self.work.say(f"restic restore ended with exit {done.code}: {done.words}")
        for piece in pieces:
            written = f"{directory.name}{self.snapshot.path}/{piece.path}"
            if self._is_at(written, piece):
                beneath.move(self._directory, written, piece.path)
                if done.code == 0:
                    self._whole.add(piece.path)

    def fetch_for_store(self, path: str) -> tuple[Path, Piece]:
        """Fetch a file of the set for a store that compares its checksum itself.

        restic has compared what it wrote with its own checksum; a file from another source is compared here.
        """
        self._await(path)
        if path in self._whole and self.is_here(path):
            return self._directory / path, self.manifest.piece(path)
        return self.fetch(path)

    def fetch(self, path: str) -> tuple[Path, Piece]:
        """Fetch a file of the set and compare it with its checksum."""
        piece = self.manifest.piece(path)
        to = self._directory / path
        self._await(path)
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

    def drop(self, collection: Collection) -> None:
        """Delete the files of a collection that is created and compared."""
        for shard in collection.shards:
            beneath.remove(self._directory, shard.path)

    def _await(self, path: str) -> None:
        if coming := self._coming.get(path):
            coming.result()

    def await_turn(self, store: str) -> None:
        """Wait until the earlier stores have taken their live names. Raises where one of them failed."""
        self._turns.wait(store)

    def taking_turns(self, stores: Sequence[str]) -> Turns:
        """Make these stores wait for each other in this order."""
        self._turns = Turns(stores)
        return self._turns

    def is_here(self, path: str) -> bool:
        """Whether a file was fetched before, by its size."""
        return self._is_at(path, self.manifest.piece(path))

    def _is_at(self, path: str, piece: Piece) -> bool:
        try:
            with beneath.read(self._directory, path) as file:
                about = os.fstat(file.fileno())
                return stat.S_ISREG(about.st_mode) and about.st_size == piece.size
        except OSError:
            return False

    def _is_as_saved(self, piece: Piece) -> bool:
        with beneath.read(self._directory, piece.path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == piece.sha256

    def made(self) -> dict[str, str]:
        """Return what this restore has begun or done, by name, with that of an earlier run that was killed."""
        try:
            found: dict[str, str] = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def making(self, name: str, word: str) -> None:
        """Record a step before it runs, or as done."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with self._recording:
            write_whole(self._record, json.dumps(self.made() | {name: word}))

    def beside(self, name: str) -> str:
        """Return a name for a copy of ``name`` that is unique to this set."""
        mark = f"__{self.snapshot.short}"
        return f"{shortened(name, LONGEST - len(mark))}{mark}"

    def forget(self) -> None:
        """Remove what was fetched and recorded for this target, of replaced sets too."""
        for each in self.work.fetched.glob(f"*-{self._target}"):
            shutil.rmtree(each, ignore_errors=True)
