"""What a source gives: its shape, and rows in an order in which reading can go on."""

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
# Where reading goes on after a row: JSON, in the source's own words.
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
    """What the vectors of one name are. ``distance`` is None where the source does not say."""

    size: int | None
    distance: str | None
    datatype: str = "float32"
    sparse: bool = False
    multi: bool = False

    def __str__(self) -> str:
        return "sparse" if self.sparse else f"{self.size}-d {self.distance} {self.datatype}"


@dataclass(frozen=True, slots=True)
class Row:
    """One record. ``broken`` says why it cannot become a point."""

    key: Key
    position: Position
    vectors: Mapping[str, Vector]
    payload: Mapping[str, Any]
    broken: str = ""


@dataclass(frozen=True)
class Described:
    """A source before a row of it is read.

    ``identity`` must be the same when a migration goes on; ``namespace`` keeps the ids of two sources apart;
    ``fields`` are the payload's, with what becomes of each; ``notes`` are sentences for the person. ``left_out`` is
    what the source has and no point gets, with the reason. ``body`` is how another Qdrant makes the collection, with
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
    """An open store that can be read in order, from any place on."""

    def describe(self) -> Described:
        """What it is."""

    def count(self) -> int:
        """Its rows, counted. Raises :class:`UserError` where two rows have one key."""

    def pages(self, after: Position | None) -> Iterator[list[Row]]:
        """Its rows after a place, in the order of their keys, as many at once as memory is meant for."""
