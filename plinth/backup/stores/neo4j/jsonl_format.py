"""A graph as lines of JSON: what is the same graph gives the same lines, in any order. Pure functions, and no I/O.

    {"id": "4:...:7", "labels": ["Person"], "properties": {"name": "A"}, "typed": [["born", "date", "1815-12-10"]]}
    {"type": "KNOWS", "start": "4:...:7", "end": "4:...:8", "properties": {}}

`properties` is what JSON holds, and what it does not as {"float": "nan"}, {"bytes": base64}, {"point": [srid, [x, y]]}.
`typed` are dates, times and durations as the server itself writes and reads them: a driver's own types know no year 0,
no difference between `Z` and `[UTC]`, and not every zone.
"""

from __future__ import annotations

import hashlib
import math
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from neo4j.spatial import CartesianPoint, Point, WGS84Point

# What a restore joins relationships by; no label and no property of anyone else.
MARK, KEY = "__plinth_restore", "__plinth_id"
POINTS = {7203: CartesianPoint, 9157: CartesianPoint, 4326: WGS84Point, 4979: WGS84Point}
BATCH_ROWS, BATCH_BYTES = 1000, 4 << 20
_MODULUS = 1 << 256


def encoded(value: Any) -> Any:
    """A property's value as JSON holds it; raises :class:`TypeError` for a type that Neo4j 5 does not store."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, list):
        return [encoded(each) for each in value]
    if isinstance(value, bytes | bytearray):
        return {"bytes": b64encode(value).decode()}
    if isinstance(value, Point):
        return {"point": [value.srid, [encoded(each) for each in value]]}
    raise TypeError(f"a value of the type {type(value).__name__}")


def decoded(value: Any) -> Any:
    """The value that :func:`encoded` was given."""
    if isinstance(value, list):
        return [decoded(each) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "float":
        return float(held)
    if kind == "bytes":
        return b64decode(held)
    srid, coordinates = held
    return POINTS[srid](decoded(coordinates))


def node_line(id_: str, labels: Iterable[str], properties: Iterable[Sequence[Any]]) -> bytes:
    """A node's line. ``properties`` are (key, kind, value), the kind None where the value needs none."""
    return _line({"id": id_, "labels": sorted(label for label in labels if label != MARK)}, properties)


def relationship_line(type_: str, start: str, end: str, properties: Iterable[Sequence[Any]]) -> bytes:
    """A relationship's line, between the ids of two nodes."""
    return _line({"type": type_, "start": start, "end": end}, properties)


def row(line: bytes) -> dict[str, Any]:
    """A line as parameters of a statement that makes it anew."""
    read: dict[str, Any] = orjson.loads(line)
    return read | {
        "properties": {key: decoded(value) for key, value in read["properties"].items()},
        "typed": read.get("typed", []),
    }


def batches(lines: Iterable[bytes], rows: int = BATCH_ROWS, size: int = BATCH_BYTES) -> Iterator[list[bytes]]:
    """Lines in order, in lists of at most so many, and of so many bytes unless a single line is longer."""
    batch: list[bytes] = []
    held = 0
    for line in lines:
        if batch and (len(batch) == rows or held + len(line) > size):
            yield batch
            batch, held = [], 0
        batch.append(line)
        held += len(line)
    if batch:
        yield batch


@dataclass
class Tally:
    """Counts by label set or type, and a checksum over lines that no order changes."""

    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    _sum: int = 0

    def add(self, line: bytes) -> None:
        """Count a line."""
        read = orjson.loads(line)
        self.counts[tuple(read["labels"]) if "labels" in read else (read["type"],)] += 1
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(line).digest(), "big")) % _MODULUS

    @property
    def count(self) -> int:
        """All of them."""
        return self.counts.total()

    @property
    def checksum(self) -> str:
        """Of all of them, in hex."""
        return f"{self._sum:064x}"


def _line(head: dict[str, Any], properties: Iterable[Sequence[Any]]) -> bytes:
    plain, typed = {}, []
    for key, kind, value in properties:
        if key == KEY:
            continue
        if kind is None:
            plain[key] = encoded(value)
        else:
            typed.append([key, kind, value])
    whole = head | {"properties": plain} | ({"typed": sorted(typed, key=lambda each: str(each[0]))} if typed else {})
    return orjson.dumps(whole, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
