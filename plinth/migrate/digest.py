"""A digest of a set of points that does not depend on their order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from plinth.migrate.model import Sparse, Vector

MODULUS = 2**128


@dataclass(frozen=True, slots=True)
class Point:
    """A point as it is sent, or as it was read back."""

    id: int | str
    vectors: Mapping[str, Vector]
    payload: Mapping[str, Any]


def canonical(payload: Mapping[str, Any]) -> bytes:
    """Serialize a payload canonically.

    Raises ``TypeError`` for what JSON cannot hold, such as half a surrogate pair.
    """
    return orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)


def digest(point: Point) -> int:
    """Compute BLAKE2b (128 bit) of id, vectors by name and payload; a set's digest is the sum of its points'."""
    state = hashlib.blake2b(orjson.dumps(point.id), digest_size=16)
    for name in sorted(point.vectors):
        vector = point.vectors[name]
        parts = vector if isinstance(vector, Sparse) else (vector,)
        state.update(orjson.dumps([name, [list(part.shape) for part in parts]]))
        for part in parts:
            # -0.0 and 0.0 are the same number.
            state.update(np.ascontiguousarray(part + part.dtype.type(0)).tobytes())
    state.update(canonical(point.payload))
    return int.from_bytes(state.digest(), "big")


def added(total: int, more: int) -> int:
    """Return the digest of the union of two sets that share no point."""
    return (total + more) % MODULUS


def shown(total: int) -> str:
    """Format a digest for a report."""
    return f"{total:032x}"
