"""A folder of a set as restic streams it: every file by its checksum, and nothing that its manifest does not name."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import pytest

from plinth.backup.manifest import Measure, Piece
from plinth.backup.repository.restic_output import Snapshot
from plinth.backup.repository.set_folder import digests_of
from plinth.backup.session import BackupError

STAGE = "/var/lib/plinth/work/stage"
SNAPSHOT = Snapshot("a" * 64, 0.0, STAGE, complete=True)
FILES = {"qdrant/a/0.snapshot": b"one" * 999, "qdrant/a/1.snapshot": b"", "qdrant/b%20c/0.snapshot": b"\0" * 9999}
PIECES = [Piece(path=path, size=len(held), sha256=sha256(held).hexdigest()) for path, held in FILES.items()]


class Streamed:
    """A restic that writes an archive."""

    def __init__(self, members: list[tuple[str, bytes | str]]) -> None:
        self._file = io.BytesIO()
        with tarfile.open(fileobj=self._file, mode="w") as archive:
            for name, held in members:
                member = tarfile.TarInfo(name)
                if isinstance(held, str):
                    member.type, member.linkname = (tarfile.SYMTYPE, held) if held else (tarfile.DIRTYPE, "")
                    archive.addfile(member)
                else:
                    member.size = len(held)
                    archive.addfile(member, io.BytesIO(held))

    def cut(self, size: int) -> Streamed:
        self._file.truncate(size)
        return self

    @contextmanager
    def stream(self, *_arguments: str) -> Iterator[Any]:
        self._file.seek(0)
        yield self._file


def members(root: str) -> list[tuple[str, bytes | str]]:
    return [(f"{root}qdrant", ""), *((f"{root}{path}", held) for path, held in FILES.items())]


# Versions of restic name members from the root, or from the folder that was asked for.
@pytest.mark.parametrize("root", [f"{STAGE}/", f"{STAGE[1:]}/"])
def test_every_file_comes_with_its_checksum_from_one_stream(root: str) -> None:
    restic: Any = Streamed(members(root))
    digests = digests_of(restic, SNAPSHOT, "qdrant", PIECES)
    assert digests == {piece.path: piece.sha256 for piece in PIECES}


def test_a_changed_file_has_another_checksum_and_one_that_is_missing_has_none() -> None:
    changed: Any = Streamed([(f"{STAGE}/qdrant/a/0.snapshot", b"two" * 999)])
    digests = digests_of(changed, SNAPSHOT, "qdrant", PIECES)
    assert set(digests) == {"qdrant/a/0.snapshot"}
    assert digests["qdrant/a/0.snapshot"] != PIECES[0].sha256


@pytest.mark.parametrize(
    "hostile",
    [
        ("qdrant/a/0.snapshot", "/etc/shadow"),
        ("qdrant/a/0.snapshot", b"one" * 999 + b"!"),
        ("qdrant/a/more", b"x"),
        ("qdrant/../../../etc/cron.d/x", b"x"),
        ("manifest.json", b"{}"),
        ("qdrant/\x1b[31m", b"x"),
    ],
)
def test_what_is_no_piece_or_longer_ends_the_reading(hostile: tuple[str, bytes | str]) -> None:
    restic: Any = Streamed([(f"{STAGE}/{hostile[0]}", hostile[1])])
    with pytest.raises(BackupError, match="is not what its manifest says") as refused:
        digests_of(restic, SNAPSHOT, "qdrant", PIECES)
    assert str(refused.value).isprintable()


def test_the_same_file_twice_ends_the_reading() -> None:
    twice: Any = Streamed([(f"{STAGE}/qdrant/a/1.snapshot", b"")] * 2)
    with pytest.raises(BackupError, match="is not what its manifest says"):
        digests_of(twice, SNAPSHOT, "qdrant", PIECES)


def test_a_stream_that_breaks_off_is_a_sentence() -> None:
    restic: Any = Streamed(members(f"{STAGE}/")).cut(3000)
    with pytest.raises(BackupError, match="qdrant of set aaaaaaaa cannot be read"):
        digests_of(restic, SNAPSHOT, "qdrant", PIECES)


@pytest.mark.parametrize(
    ("chunks", "size", "data"),
    [
        ([b"\0" * 8192], 8192, 0),
        ([b"x" * 4096, b"\0" * 4096], 8192, 4096),
        ([b"\0" * 4096 + b"x" * 10], 4106, 10),
        ([b"\0" * 100], 100, 100),
        ([bytes(4095) + b"x"], 4096, 4096),
        ([], 0, 0),
    ],
)
def test_a_file_holds_its_bytes_outside_of_blocks_of_zeros(chunks: list[bytes], size: int, data: int) -> None:
    measure = Measure()
    for chunk in chunks:
        measure.add(chunk)
    piece = measure.piece("redis/dump.rdb")
    assert (piece.size, piece.data, piece.sha256) == (size, data, sha256(b"".join(chunks)).hexdigest())
