"""Files with holes: the wheel sets aside 32 MiB at a time, of which a small collection fills next to nothing.

An archive keeps such a file as `tar`'s sparse member (GNU's format 1.0 in a pax header), which `tar` and Python read.
"""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

CHUNK = 64 * 1024
BLOCK = 512
_ZEROS = bytes(CHUNK)
Extent = tuple[int, int]
"""Where some bytes begin, and how many they are."""


def add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a file, or a directory with all below it; ``archive`` is in pax format."""
    if path.is_dir():
        archive.add(path, arcname=name, recursive=False)
        for inner in sorted(path.iterdir()):
            add(archive, inner, f"{name}/{inner.name}")
        return
    with path.open("rb") as file:
        found = list(extents(file))
        size = path.stat().st_size
        stored = sum(length for _, length in found)
        if stored == size:
            archive.add(path, arcname=name)
            return
        head = _map(found, size)
        member = archive.gettarinfo(path, arcname=name)
        member.size = len(head) + stored
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": name,
            "GNU.sparse.realsize": str(size),
        }
        archive.addfile(member, _Joined(head, file, found))


def copy(source: str, target: str) -> None:
    """Copy a file, and its holes as holes."""
    with Path(source).open("rb") as given, Path(target).open("xb") as made:
        for offset, length in extents(given):
            given.seek(offset)
            made.seek(offset)
            made.write(given.read(length))
        made.truncate(os.fstat(given.fileno()).st_size)


def extents(file: BinaryIO) -> Iterator[Extent]:
    """What of a file is not zero, in chunks that are joined where they touch."""
    begin = end = 0
    for offset, length in _chunks(file):
        file.seek(offset)
        if file.read(length) == _ZEROS[:length]:
            continue
        if offset == end and end > begin:
            end = offset + length
            continue
        if end > begin:
            yield begin, end - begin
        begin, end = offset, offset + length
    if end > begin:
        yield begin, end - begin


def _chunks(file: BinaryIO) -> Iterator[Extent]:
    """The chunks that the file system has data of."""
    descriptor, place = file.fileno(), 0
    size = os.fstat(descriptor).st_size
    while place < size:
        try:
            begin = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        place = begin - begin % CHUNK
        while place < end:
            yield place, min(CHUNK, size - place)
            place += CHUNK


def _map(found: list[Extent], size: int) -> bytes:
    # An empty extent at the end says how long the file is, as GNU tar writes it.
    numbers = [number for extent in [*found, (size, 0)] for number in extent]
    text = "".join(f"{number}\n" for number in [len(found) + 1, *numbers]).encode()
    return text.ljust(-(-len(text) // BLOCK) * BLOCK, b"\0")


class _Joined(io.RawIOBase):
    """The map, then the extents, as one file to be read."""

    def __init__(self, head: bytes, file: BinaryIO, found: list[Extent]) -> None:
        self._parts = self._read(head, file, found)
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer at the end."""
        while size < 0 or len(self._rest) < size:
            part = next(self._parts, None)
            if part is None:
                break
            self._rest += part
        size = len(self._rest) if size < 0 else size
        answer, self._rest = self._rest[:size], self._rest[size:]
        return answer

    @staticmethod
    def _read(head: bytes, file: BinaryIO, found: list[Extent]) -> Iterator[bytes]:
        yield head
        for offset, length in found:
            file.seek(offset)
            while length > 0 and (part := file.read(min(CHUNK, length))):
                length -= len(part)
                yield part
