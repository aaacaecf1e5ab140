"""Generated vectors that resemble embeddings, of any size and dimension.

Real text embeddings have a power-law spectrum, lie in clusters of very different sizes and share a mean direction.
Isotropic noise has none of these, and recall on it says little. The local intrinsic dimension is published with every
recall: real embeddings have 15 to 30.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

SPECTRUM = 0.6
CLUSTERS = 500
ZIPF = 1.0
WITHIN = 0.9
MEAN = 0.6
BLOCK = 10000


@dataclass(frozen=True)
class Generated:
    """Unit rows, the tenant of each, and queries with theirs. Tenant 0 is the largest."""

    vectors: Matrix
    tenants: npt.NDArray[np.int64]
    queries: Matrix
    query_tenants: npt.NDArray[np.int64]


def generate(points: int, dimensions: int, tenants: int, queries: int, seed: int) -> Generated:
    """Generate points in Zipf clusters with a power-law spectrum; half of the clusters belong mostly to one tenant."""
    chance = np.random.default_rng(seed)
    scale = (np.arange(1, dimensions + 1) ** -SPECTRUM).astype(np.float32)
    rotation = np.linalg.qr(chance.normal(size=(dimensions, dimensions)))[0].astype(np.float32)
    centres = chance.normal(size=(CLUSTERS, dimensions)).astype(np.float32) * scale
    mean = chance.normal(size=dimensions).astype(np.float32) * scale * MEAN
    tenant_shares, owners = _zipf(tenants), chance.integers(0, tenants, CLUSTERS)

    def draw(count: int, spread: float) -> tuple[Matrix, npt.NDArray[np.int64]]:
        cluster = chance.choice(CLUSTERS, count, p=_zipf(CLUSTERS))
        rows = np.empty((count, dimensions), dtype=np.float32)
        for start in range(0, count, BLOCK):
            block = cluster[start : start + BLOCK]
            noise = chance.normal(size=(len(block), dimensions)).astype(np.float32) * scale * spread
            rows[start : start + BLOCK] = (mean + centres[block] + noise) @ rotation
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        tenant = chance.choice(tenants, count, p=tenant_shares)
        loyal = (cluster % 2 == 0) & (chance.random(count) < 0.5)
        return rows, np.where(loyal, owners[cluster], tenant)

    vectors, tenant_of = draw(points, WITHIN)
    # Queries lie slightly off the data, as real ones do.
    asked, asked_tenants = draw(queries, WITHIN * 1.1)
    return Generated(vectors, tenant_of, asked, asked_tenants)


def intrinsic_dimension(vectors: Matrix, sample: int = 300, neighbours: int = 20) -> float:
    """Estimate the local intrinsic dimension by maximum likelihood over the nearest neighbours (Levina and Bickel)."""
    rows = vectors[:: max(1, len(vectors) // sample)][:sample]
    distances = np.sqrt(np.maximum(2 - 2 * rows @ vectors.T, 1e-12))
    nearest = np.sort(distances, axis=1)[:, 1 : neighbours + 1]
    logs = np.log(nearest[:, -1:] / nearest[:, :-1])
    return float(np.mean(1 / logs.mean(axis=1)))


def _zipf(count: int) -> npt.NDArray[np.float64]:
    weights: npt.NDArray[np.float64] = np.arange(1, count + 1, dtype=np.float64) ** -ZIPF
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares
