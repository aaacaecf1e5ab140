"""Vectors near a stored one, to search with."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

MOVED = 0.3


def moved(vector: Sequence[float], seed: str) -> tuple[float, ...]:
    """Return the vector with noise of a third of its length, the same for the same seed."""
    values = np.asarray(vector, dtype=np.float64)
    noise = np.random.default_rng(zlib.crc32(seed.encode())).normal(size=len(values))
    length = float(np.linalg.norm(values)) or 1.0
    return tuple((values + noise / np.linalg.norm(noise) * length * MOVED).tolist())
