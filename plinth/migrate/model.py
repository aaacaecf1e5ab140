"""What a source provides: its shape, and rows in an order in which reading can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# A part of a key is a number or text; a key of several columns is a tuple of parts.
Part = int | str
Key = Part | tuple[Part, ...]
# Where reading is resumed after a row: JSON, in the source's own form.
Position = Any
UNNAMED = ""
ROUNDED = "they are floats of 64 bits, and a collection keeps 32 of them"


class Sparse(NamedTuple):
    """A sparse vector; indexes count from 0 and grow."""

    indices: NDArray[np.uint32]
    values: Floats


# Dense (one axis), several dense ones of one point (two axes), or sparse.
Vector = Floats | Sparse


@dataclass(frozen=True)
class VectorShape:
    """The shape of the vectors of one name. ``distance`` is None if the source does not define it."""

    size: int | None
    distance: str | None
    datatype: str = "float32"
    sparse: bool = False
    multi: bool = False

    def __str__(self) -> str:
        return "sparse" if self.sparse else f"{self.size}-d {self.distance} {self.datatype}"


@dataclass(frozen=True, slots=True)
class Row:
    """One record. ``broken`` is the reason why it cannot become a point."""

    key: Key
    position: Position
    vectors: Mapping[str, Vector]
    payload: Mapping[str, Any]
    broken: str = ""


@dataclass(frozen=True)
class Described:
    """The description of a source, made before a row is read.

    ``identity`` must be the same when a migration is resumed; ``namespace`` keeps the ids of two sources apart;
    ``fields`` are the payload's, with the type that each gets; ``notes`` are messages for the user. ``left_out`` is
    what the source has and no point gets, with the reason. ``body`` is how another Qdrant creates the collection, with
    ``indexes`` over its payload.
    """

    identity: Mapping[str, Any]
    namespace: str
    vectors: Mapping[str, VectorShape]
    fields: Mapping[str, str]
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    indexes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Source(Protocol):
    """An open store that can be read in order from any position."""

    def describe(self) -> Described:
        """Describe the source."""

    def count(self) -> int:
        """Count its rows. Raises :class:`UserError` if two rows have the same key."""

    def pages(self, after: Position | None) -> Iterator[list[Row]]:
        """Yield its rows after a position in the order of their keys, in pages of bounded size."""
