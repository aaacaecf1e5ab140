"""Vectors against a collection's configuration: what the wheel would store broken, or end itself over, is refused.

Numbers are single precision in the shard. A vector longer than :data:`LENGTH_MAX` would be stored as infinite, or its
scores would be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import qdrant_edge as edge

from plinth.embedded.errors import ApiError, invalid, malformed, refused
from plinth.embedded.schema import single

LENGTH_MAX = math.sqrt(float(2**127)) / 2
"""The square of a distance between two such vectors is still a number in single precision."""
HALF_MAX = 65504.0
_NUMBERS = {int, float}
INDEX_END = 2**32


@dataclass(frozen=True)
class Kind:
    """What a vector of one name is: ``size`` is None for sparse ones; ``largest`` bounds each number."""

    size: int | None
    multi: bool = False
    largest: float | None = None


class Vectors:
    """The vectors that a collection has, by name; the unnamed one is the empty name."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        dense, sparse = config["params"]["vectors"], config["params"].get("sparse_vectors") or {}
        self.unnamed = single(dense)
        named = {"": dense} if self.unnamed else dense
        self.kinds = {name: _kind(params) for name, params in named.items()} | {
            name: Kind(None, largest=_largest(params.get("index") or {})) for name, params in sparse.items()
        }

    @property
    def kilobytes(self) -> float:
        """What one point's dense vectors need, in single precision; multivectors are not counted."""
        return sum(kind.size or 0 for kind in self.kinds.values() if not kind.multi) * 4 / 1024

    @property
    def indexed(self) -> int:
        """How many of them have a graph."""
        return sum(1 for kind in self.kinds.values() if kind.size and not kind.multi)

    def check_name(self, name: str) -> None:
        """Raise :class:`ApiError` 400 for a name that no vector has."""
        if name not in self.kinds:
            raise ApiError(400, f"Wrong input: Not existing vector name error: {name}")

    def check_selected(self, selector: Any) -> None:
        """The names of a `with_vector`."""
        for name in selector if isinstance(selector, list) else ():
            self.check_name(name)

    def stored(self, value: Any) -> Any:
        """A point's vector or vectors, as the wheel takes them; raises :class:`ApiError`."""
        if not isinstance(value, dict):
            return self.checked(value, "")
        if {"model", "text", "image", "object"} & value.keys() and not value.keys() <= self.kinds.keys():
            raise refused("inference; send vectors")
        if value.keys() == {""}:
            return self.checked(value[""], "")
        return {name: self.checked(inner, name) for name, inner in value.items()}

    def checked(self, value: Any, name: str) -> Any:
        """One vector as the wheel takes it; raises :class:`ApiError`."""
        self.check_name(name)
        kind = self.kinds[name]
        if kind.size is None:
            return _sparse(value, kind)
        if not isinstance(value, list):
            raise _not_a_vector("a sparse one where a dense one belongs" if isinstance(value, dict) else repr(value))
        if not kind.multi:
            return _dense(value, kind, name)
        rows = value if value and isinstance(value[0], list) else [value]
        if not all(isinstance(row, list) for row in rows):
            raise _not_a_vector("some rows are no lists")
        if not all(rows):
            raise invalid("vector: all vectors must be non-empty")
        return [_dense(row, kind, name) for row in rows]


def _kind(params: Mapping[str, Any]) -> Kind:
    largest = None if params["distance"] == "Cosine" else _largest(params)
    return Kind(params["size"], bool(params.get("multivector_config")), largest)


def _largest(params: Mapping[str, Any]) -> float | None:
    return HALF_MAX if params.get("datatype") == "float16" else None


def _dense(value: list[Any], kind: Kind, name: str) -> list[Any]:
    if not value:
        raise invalid("vector: dense vector must not be empty")
    _check_numbers(value, kind.largest)
    if len(value) != kind.size:
        where = f" for vector '{name}'" if name else ""
        raise ApiError(400, f"Wrong input: Vector dimension error: expected dim: {kind.size}, got {len(value)}{where}")
    return value


def _sparse(value: Any, kind: Kind) -> edge.SparseVector:
    if not isinstance(value, dict) or value.keys() != {"indices", "values"}:
        raise _not_a_vector("a sparse one has indices and values, and no more")
    indices, values = value["indices"], value["values"]
    if not isinstance(indices, list) or not isinstance(values, list):
        raise _not_a_vector("indices and values are lists")
    if not set(map(type, indices)) <= {int} or (indices and not 0 <= min(indices) <= max(indices) < INDEX_END):
        raise _not_a_vector("indices are whole numbers from 0 to 4294967295")
    _check_numbers(values, kind.largest)
    if len(indices) != len(values):
        raise invalid("vector.values: must be the same length as indices")
    if len(set(indices)) != len(indices):
        raise invalid("vector.indices: must be unique")
    ordered = sorted(zip(indices, values, strict=True))
    return edge.SparseVector([index for index, _ in ordered], [number for _, number in ordered])


def _check_numbers(values: list[Any], largest: float | None) -> None:
    if not set(map(type, values)) <= _NUMBERS:
        raise _not_a_vector("it holds numbers only")
    try:
        length = math.hypot(*values)
        beyond = length > LENGTH_MAX or (largest is not None and max(map(abs, values)) > largest)
    except OverflowError:
        beyond = True
    if beyond:
        raise malformed("a vector is too long for the precision in which it is stored; scale it down")


def _not_a_vector(why: str) -> ApiError:
    return malformed(f"data is not a vector: {why}")
