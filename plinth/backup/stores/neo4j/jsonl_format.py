"""A graph as lines of JSON: equal graphs give equal lines, in any order. These are pure functions without I/O.

    {"id": "4:...:7", "labels": ["Person"], "properties": {"name": "A"}, "typed": [["born", "date", "1815-12-10"]]}
    {"type": "KNOWS", "start": "4:...:7", "end": "4:...:8", "properties": {}}

`properties` holds JSON values, and others as {"float": "nan"}, {"bytes": base64}, {"point": [srid, [x, y]]}. `typed`
are dates, times and durations as the server writes and reads them: a driver's own types have no year 0, no difference
between `Z` and `[UTC]`, and not every zone.
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

# A restore matches the ends of relationships by these; no user's label or property has such a name.
MARK, KEY = "__plinth_restore", "__plinth_id"
POINTS = {7203: CartesianPoint, 9157: CartesianPoint, 4326: WGS84Point, 4979: WGS84Point}
BATCH_ROWS, BATCH_BYTES = 1000, 4 << 20
_MODULUS = 1 << 256


def encoded(value: Any) -> Any:
    """Encode a property's value as JSON. Raises :class:`TypeError` for a type that Neo4j 5 does not store."""
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
    """Decode a value of :func:`encoded`."""
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
    """Return a node's line. ``properties`` are (key, kind, value), with kind None where the value needs none."""
    return _line({"id": id_, "labels": sorted(label for label in labels if label != MARK)}, properties)


def relationship_line(type_: str, start: str, end: str, properties: Iterable[Sequence[Any]]) -> bytes:
    """Return a relationship's line, between the ids of two nodes."""
    return _line({"type": type_, "start": start, "end": end}, properties)


def row(line: bytes) -> dict[str, Any]:
    """Return a line as the parameters of a statement that creates its node or relationship."""
    read: dict[str, Any] = orjson.loads(line)
    return read | {
        "properties": {key: decoded(value) for key, value in read["properties"].items()},
        "typed": read.get("typed", []),
    }


def batches(lines: Iterable[bytes], rows: int = BATCH_ROWS, size: int = BATCH_BYTES) -> Iterator[list[bytes]]:
    """Yield lines in order, in lists of at most ``rows`` lines and ``size`` bytes.

    A single longer line is a list of its own.
    """
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
    """Counts by label set or type, and a checksum over lines that does not depend on their order."""

    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    _sum: int = 0

    def add(self, line: bytes) -> None:
        """Count a line."""
        read = orjson.loads(line)
        self.counts[tuple(read["labels"]) if "labels" in read else (read["type"],)] += 1
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(line).digest(), "big")) % _MODULUS

    @property
    def count(self) -> int:
        """Return the number of all lines."""
        return self.counts.total()

    @property
    def checksum(self) -> str:
        """Return the checksum of all lines, in hex."""
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
