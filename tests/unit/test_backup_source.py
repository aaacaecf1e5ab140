"""What a restore reads of a set: restic writes its files, and none counts before it is compared with its checksum."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from plinth.backup.config import Config
from plinth.backup.manifest import Manifest, Piece, parse
from plinth.backup.repository.restic_output import Snapshot
from plinth.backup.restore_source import COMING, Source, Turns
from plinth.backup.session import BackupError, Done, Work, working

SNAPSHOT = Snapshot("a" * 64, 0.0, "/var/lib/it's [1]/stage", complete=True)
PATH, HELD = "redis/dump.rdb", b"saved" * 999


class Wrote:
    """A restic whose `restore` leaves something, and whose `dump` gives the file as the repository has it."""

    def __init__(self, leave: Callable[[Path], object], code: int = 0, held: bytes = HELD) -> None:
        self.leave, self.code, self.held = leave, code, held
        self.restored: list[list[str]] = []
        self.dumped: list[str] = []

    def restore(
        self, snapshot: Snapshot, paths: Sequence[str], target: Path, is_over: Callable[[], bool] | None = None
    ) -> Done:
        self.restored.append(list(paths))
        for path in paths:
            to = target / snapshot.path[1:] / path
            to.parent.mkdir(parents=True)
            self.leave(to)
        return Done(-9 if is_over and is_over() else self.code, "", "lsetxattr: operation not permitted")

    def fetch(self, _snapshot: Snapshot, piece: Piece, to: BinaryIO) -> str:
        self.dumped.append(piece.path)
        to.write(self.held)
        return sha256(self.held).hexdigest()


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    (tmp_path / "p").write_text("x")
    repository = {"location": str(tmp_path / "r"), "password_file": str(tmp_path / "p")}
    settings = {"name": "t", "directory": str(tmp_path / "w"), "state": str(tmp_path / "s"), "repository": repository}
    with working(Config.model_validate(settings), lambda _: None) as given:
        yield given


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    content = {
        "name": "t",
        "plinth": "1",
        "began_at": 1.0,
        "ended_at": 2.0,
        "stores": {},
        "redis": {"version": "7", "path": PATH, "keys": {}, "expiring": {}, "samples": {}},
        "pieces": [{"path": PATH, "size": len(HELD), "sha256": sha256(HELD).hexdigest()}],
    }
    return parse(json.dumps(content), "a test")


def opened(work: Work, restic: Wrote, manifest: Manifest) -> Source:
    given: Any = restic
    return Source(work, given, SNAPSHOT, manifest, "target")


def outside(to: Path) -> Path:
    """Another file with the same bytes, which a link of a set could lead to."""
    other = to.parent.parent / "outside"
    other.write_bytes(HELD)
    return other


def left(work: Work) -> list[Path]:
    return list(work.fetched.rglob(f"{COMING}*"))


# What restic leaves, how it ends, and whether that counts.
LEFT: dict[str, tuple[Callable[[Path], object], int, bool]] = {
    "whole": (lambda to: to.write_bytes(HELD), 0, True),
    "whole, but for an attribute": (lambda to: to.write_bytes(HELD), 1, True),
    "nothing": (lambda _: None, 0, False),
    "other bytes": (lambda to: to.write_bytes(b"other" * 999), 0, False),
    "a part": (lambda to: to.write_bytes(HELD[:-1]), 1, False),
    "a link": (lambda to: to.symlink_to(outside(to)), 0, False),
    "a pipe": (lambda to: os.mkfifo(to), 0, False),
    "a directory": (lambda to: to.mkdir(), 0, False),
    "more than the set has, which ends it": (lambda to: to.write_bytes(bytes(20 << 20)), 0, False),
}


@pytest.mark.parametrize(("leave", "code", "counts"), LEFT.values(), ids=LEFT)
def test_what_restic_wrote_counts_once_it_has_its_checksum_and_else_is_read_by_itself(
    work: Work, manifest: Manifest, leave: Callable[[Path], object], code: int, counts: bool
) -> None:
    restic = Wrote(leave, code)
    source = opened(work, restic, manifest)
    with source.fetching([], [PATH]):
        file, piece = source.fetch(PATH)
        assert (file.read_bytes(), file.is_symlink(), piece.path) == (HELD, False, PATH)
    assert (restic.restored, restic.dumped) == ([[PATH]], [] if counts else [PATH])
    assert left(work) == []
    # A run after that one was killed has it already.
    again = opened(work, restic, manifest)
    with again.fetching([PATH]):
        assert again.fetch(PATH)[0].read_bytes() == HELD
    assert len(restic.restored) == 1


@pytest.mark.parametrize("name", LEFT)
def test_a_store_that_compares_by_itself_gets_what_restic_wrote_without_a_fault(
    work: Work, manifest: Manifest, name: str
) -> None:
    leave, code, counts = LEFT[name]
    restic = Wrote(leave, code)
    source = opened(work, restic, manifest)
    with source.fetching([PATH]):
        file, piece = source.fetch_for_store(PATH)
    assert piece.sha256 == sha256(HELD).hexdigest()
    # Other bytes of the same size are the store's to refuse, by that checksum.
    is_left = name == "other bytes"
    assert (file.read_bytes() == HELD) is not is_left
    assert restic.dumped == ([] if counts or is_left else [PATH])


def test_a_set_whose_repository_has_other_bytes_is_refused(work: Work, manifest: Manifest) -> None:
    source = opened(work, Wrote(lambda to: to.write_bytes(b"other" * 999), held=b"other" * 999), manifest)
    with source.fetching([PATH]), pytest.raises(BackupError, match="is not what was saved; see `plinth backup verify`"):
        source.fetch(PATH)
    assert not source.is_here(PATH)


def test_what_a_killed_run_was_writing_is_removed_by_the_next(work: Work, manifest: Manifest) -> None:
    (work.fetched / "aaaaaaaa-target" / f"{COMING}x" / "var").mkdir(parents=True)
    source = opened(work, Wrote(lambda to: to.write_bytes(HELD)), manifest)
    assert left(work) == []
    assert not source.is_here(PATH)


def test_a_restore_that_ends_early_ends_its_restic(work: Work, manifest: Manifest) -> None:
    begun, ended = threading.Event(), threading.Event()

    class Slow(Wrote):
        def restore(
            self, snapshot: Snapshot, paths: Sequence[str], target: Path, is_over: Callable[[], bool] | None = None
        ) -> Done:
            begun.set()
            while is_over and not is_over():
                ended.wait(0.01)
            ended.set()
            return Done(-9, "", "")

    source = opened(work, Slow(lambda _: None), manifest)
    with source.fetching([PATH]):
        assert begun.wait(60)
    assert ended.is_set()
    assert left(work) == []


def test_stores_take_their_live_names_in_order_and_none_after_one_that_failed() -> None:
    turns = Turns(("postgres", "qdrant"))
    order: list[str] = []

    def restore_qdrant() -> None:
        turns.wait("qdrant")
        order.append("qdrant")

    waiting = threading.Thread(target=restore_qdrant)
    waiting.start()
    turns.wait("postgres")
    order.append("postgres")
    turns.end("postgres")
    waiting.join(10)
    assert order == ["postgres", "qdrant"]
    failed = Turns(("postgres", "qdrant"))
    failed.end("postgres", BackupError("the disk is full"))
    with pytest.raises(BackupError, match="postgres was not restored"):
        failed.wait("qdrant")
    Turns().wait("redis")
