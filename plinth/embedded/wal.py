r"""The wheel's write-ahead log, as far as it takes to leave out an entry that ends every start.

The wheel logs a write before it carries it out. One that it cannot carry out, or cannot read back, is met again at each
start. Here such an entry is replaced by one that does nothing, so that it costs itself alone and every other entry
keeps its number. The log before that is kept in the collection's directory, as :data:`DAMAGED`.

A segment is `wal\0`, a seed of 4 bytes, then entries: length (8 bytes, little endian), content, zeros, and 4 bytes of
CRC-32C, each entry 8 bytes aligned. Each CRC goes on from the one before. (qdrant/wal, segment.rs)
"""

from __future__ import annotations

import json
import logging
import shutil
import struct
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import qdrant_edge as edge

from plinth.embedded import shard_files

DAMAGED = "damaged-{}.wal"
HEADER, MAGIC = 8, b"wal\0"
ACKNOWLEDGED, CLOSED, OPEN = "first-index", "closed-", "open-"
_LENGTH, _SUM = struct.Struct("<Q"), struct.Struct("<I")
log = logging.getLogger("plinth.embedded")


def opened(path: Path, config: Mapping[str, Any], indexes: Mapping[str, Any]) -> edge.EdgeShard:
    """The shard of a directory; entries of its log that keep it from opening are left out, which the log says."""
    try:
        return edge.EdgeShard.load(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    # The wheel's panic is no Exception.
    except BaseException as error:
        copy = path.with_name(DAMAGED.format(time.time_ns()))
        count = leave_out(path / "wal", copy, lambda entries: _opens(entries, config, indexes))
        if not count:
            raise
        log.error(
            "%d entries of the write-ahead log cannot be carried out (%s) and are left out; the log as it was is %s",
            count,
            " ".join(str(error).split())[:200],
            copy,
        )
        return edge.EdgeShard.load(str(path))


def leave_out(directory: Path, copy: Path, opens: Callable[[list[bytes]], bool]) -> int:
    """Replace each entry that does not open by one that does nothing; the number of those.

    Entries that are flushed already are not read at a start, and left alone.
    """
    flushed = _flushed(directory)
    count = start = 0
    for segment in _segments(directory):
        content = segment.read_bytes()
        start = int(segment.name.removeprefix(CLOSED)) if segment.name.startswith(CLOSED) else start
        entries = read(content, flushed - start)
        first = max(0, flushed - start)
        wrong = _wrong(entries, range(first, len(entries)), opens)
        if wrong:
            with copy.open("ab") as file:
                file.write(content[: _end(entries)])
            before = min(wrong)
            place = _end(entries[:before])
            chain = _SUM.unpack_from(content, place - _SUM.size)[0]
            replaced = [NOTHING if i in wrong else entry for i, entry in enumerate(entries) if i >= before]
            _rewrite(segment, content[:place] + written(chain, replaced), len(content))
        count += len(wrong)
        start += len(entries)
    return count


def read(content: bytes, trusted: int = 0) -> list[bytes]:
    """The entries of a segment, up to the first that is not whole; of the ``trusted`` first ones no sum is checked."""
    entries: list[bytes] = []
    if content[:4] != MAGIC:
        return entries
    place, chain = HEADER, _SUM.unpack_from(content, 4)[0]
    while place + HEADER <= len(content):
        (length,) = _LENGTH.unpack_from(content, place)
        size = _padded(length)
        if not length or place + size > len(content):
            break
        stored = _SUM.unpack_from(content, place + size - _SUM.size)[0]
        if len(entries) >= trusted and stored != checksum(chain, content[place : place + size - _SUM.size]):
            break
        entries.append(content[place + _LENGTH.size : place + _LENGTH.size + length])
        place, chain = place + size, stored
    return entries


def written(chain: int, entries: list[bytes]) -> bytes:
    """Entries as they follow one whose sum is ``chain``; before the first it is the segment's seed."""
    parts = []
    for entry in entries:
        framed = (_LENGTH.pack(len(entry)) + entry).ljust(_padded(len(entry)) - _SUM.size, b"\0")
        chain = checksum(chain, framed)
        parts.append(framed + _SUM.pack(chain))
    return b"".join(parts)


def checksum(previous: int, content: bytes) -> int:
    """The CRC-32C of an entry, going on from the one before as the wal crate does it."""
    table = _table()
    state = int(f"{previous:032b}"[::-1], 2)
    # Every platform that the wheel is made for has the low byte first.
    for pair in memoryview(content).cast("H"):
        state = table[(state ^ pair) & 0xFFFF] ^ (state >> 16)
    return state ^ 0xFFFFFFFF


def _segments(directory: Path) -> list[Path]:
    """In the order of their entries."""
    closed = sorted(directory.glob(f"{CLOSED}*"), key=lambda path: int(path.name.removeprefix(CLOSED)))
    return closed + sorted(directory.glob(f"{OPEN}*"), key=lambda path: int(path.name.removeprefix(OPEN)))


def _flushed(directory: Path) -> int:
    try:
        return int(json.loads((directory / ACKNOWLEDGED).read_text())["ack_index"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _wrong(entries: list[bytes], part: range, opens: Callable[[list[bytes]], bool]) -> set[int]:
    """Which entries do not open, by halves."""
    if not part or opens([entries[index] for index in part]):
        return set()
    if len(part) == 1:
        return set(part)
    middle = len(part) // 2
    return _wrong(entries, part[:middle], opens) | _wrong(entries, part[middle:], opens)


def _opens(entries: list[bytes], config: Mapping[str, Any], indexes: Mapping[str, Any]) -> bool:
    """Whether a new shard with the same configuration opens with these entries."""
    with TemporaryDirectory(prefix="plinth-wal-") as scratch:
        path = Path(scratch) / "shard-0"
        shard_files.create(path, config, indexes).close()
        segment = _segments(path / "wal")[0]
        content = segment.read_bytes()
        present = read(content)
        body = content[:HEADER] + written(_SUM.unpack_from(content, 4)[0], present + entries)
        _rewrite(segment, body, max(len(content), len(body) + HEADER))
        try:
            edge.EdgeShard.load(str(path)).close()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            return False
        return True


def _rewrite(segment: Path, body: bytes, size: int) -> None:
    fresh = segment.with_name(f"{segment.name}.new")
    with fresh.open("wb") as file:
        file.write(body)
        file.truncate(size)
    shutil.copymode(segment, fresh)
    fresh.replace(segment)


def _padded(length: int) -> int:
    return -(-(_LENGTH.size + length + _SUM.size) // 8) * 8


def _end(entries: list[bytes]) -> int:
    return HEADER + sum(_padded(len(entry)) for entry in entries)


@cache
def _table() -> list[int]:
    """The remainder of each two bytes."""
    remainders = []
    for pair in range(1 << 16):
        for _ in range(16):
            pair = (pair >> 1) ^ (0x82F63B78 if pair & 1 else 0)
        remainders.append(pair)
    return remainders


# `{"delete_points": {"ids": []}}`, as the wheel logs it.
NOTHING = b"\xbfmdelete_points\xa1cids\x80\xff"
