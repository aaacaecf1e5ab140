"""Vectors as a collection will store them, or the reason why it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from plinth.migrate.model import Floats, Sparse, Vector, VectorShape

# Qdrant does not normalize a vector whose length is this near to 1, so what is sent is what is stored.
UNIT = 5e-7
# The tolerance of a stored component against the sent one, relative to the greatest component.
TOLERANCE = {"float32": 1e-6, "float16": 1e-3, "uint8": 0.0}


class Unfit(ValueError):
    """A row that the collection cannot hold; the message gives the reason."""


def prepared(vectors: Mapping[str, Vector], shapes: Mapping[str, VectorShape]) -> dict[str, Vector]:
    """Return the vectors of a row, normalized under Cosine; raises :class:`Unfit`.

    A row may lack a named vector, as a point may; the unnamed one is always required.
    """
    missing = [name for name in shapes if name not in vectors and (name == "" or not vectors)]
    if missing:
        raise Unfit(f"{_name(missing[0])} is missing")
    return {name: _checked(name, vector, shapes[name]) for name, vector in vectors.items()}


def near(kept: Vector, sent: Vector, datatype: str) -> bool:
    """Whether a vector that was read back equals the one that was sent, except for the rounding of its type."""
    if isinstance(kept, Sparse) or isinstance(sent, Sparse):
        if not (isinstance(kept, Sparse) and isinstance(sent, Sparse)):
            return False
        return bool(np.array_equal(kept.indices, sent.indices)) and near(kept.values, sent.values, datatype)
    if kept.shape != sent.shape:
        return False
    if np.array_equal(kept, sent):
        return True
    greatest = float(np.max(np.abs(sent))) if sent.size else 0.0
    return bool(np.max(np.abs(kept - sent)) <= TOLERANCE[datatype] * greatest)


def to_json(vectors: Mapping[str, Vector]) -> Any:
    """Convert vectors for the REST API; arrays are left to the encoder."""
    encoded = {
        name: {"indices": vector.indices, "values": vector.values} if isinstance(vector, Sparse) else vector
        for name, vector in vectors.items()
    }
    return encoded[""] if set(encoded) == {""} else encoded


def from_json(found: Any) -> dict[str, Vector]:
    """Convert vectors from the REST API."""
    named = found if isinstance(found, Mapping) else {"": found}
    return {name: _read(vector) for name, vector in named.items() if vector is not None}


def sparse(indices: Any, values: Any) -> Sparse:
    """Return a sparse vector in the order of its indexes."""
    at = np.asarray(indices, dtype=np.uint32)
    order = np.argsort(at, kind="stable")
    return Sparse(at[order], np.asarray(values, dtype=np.float32)[order])


def _read(vector: Any) -> Vector:
    if isinstance(vector, Mapping):
        return sparse(vector["indices"], vector["values"])
    return np.asarray(vector, dtype=np.float32)


def _checked(name: str, vector: Vector, shape: VectorShape) -> Vector:
    if isinstance(vector, Sparse):
        if len(np.unique(vector.indices)) != len(vector.indices):
            raise Unfit(f"{_name(name)} names an index twice")
        _finite(name, vector.values)
        return vector
    if shape.size is not None and vector.shape[-1] != shape.size:
        raise Unfit(f"{_name(name)} has {vector.shape[-1]} dimensions, not {shape.size}")
    _finite(name, vector)
    if shape.datatype == "uint8" and not np.array_equal(vector, np.clip(np.trunc(vector), 0, 255)):
        raise Unfit(f"{_name(name)} has a component that is no whole number from 0 to 255")
    if shape.datatype == "float16" and float(np.max(np.abs(vector))) > float(np.finfo(np.float16).max):
        raise Unfit(f"{_name(name)} has a component beyond half precision")
    return _unit(name, vector) if shape.distance == "Cosine" and shape.datatype != "uint8" else vector


def _finite(name: str, vector: Floats) -> None:
    if not np.isfinite(vector).all():
        raise Unfit(f"{_name(name)} has a component that is NaN or infinite")


def _unit(name: str, vector: Floats) -> Floats:
    length = np.sqrt(np.sum(np.square(vector, dtype=np.float64), axis=-1, keepdims=True))
    if not np.all(length > 0):
        raise Unfit(f"{_name(name)} is zero, which has no direction under Cosine")
    if np.all(np.abs(length - 1) <= UNIT):
        return vector
    unit: Floats = (vector / length).astype(np.float32)
    return unit


def _name(name: str) -> str:
    return f"the vector '{name}'" if name else "the vector"
