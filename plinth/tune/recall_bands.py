"""Recall by the size of the tenant that a query searches in, with its lower confidence bound; pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

WHOLE = "whole collection"
# From the largest: a graph falls apart for a tenant with a quarter of the points first (docs/tuning.md).
BANDS = ((0.2, "tenants over 20 %"), (0.05, "5 to 20 %"), (0.01, "1 to 5 %"), (0.0, "under 1 %"))
MIN_QUERIES = 20
ONE_SIDED_95 = 1.645


def band(share: float) -> str:
    """Return the band of a tenant by its share of the points."""
    return next(name for least, name in BANDS if share >= least)


def spread(tenants: Sequence[str], shares: Mapping[str, float], count: int) -> list[int]:
    """Return the positions of ``count`` queries, equally many of each band: small tenants are many and rarely queried.

    The queries keep their order, so that the same ones are chosen every time.
    """
    of_band: dict[str, list[int]] = defaultdict(list)
    for position, tenant in enumerate(tenants):
        of_band[band(shares.get(tenant, 0.0))].append(position)
    taken: list[int] = []
    waiting = [iter(positions) for positions in of_band.values()]
    while waiting and len(taken) < count:
        drawn = [next(queue, None) for queue in waiting]
        waiting = [queue for queue, position in zip(waiting, drawn, strict=True) if position is not None]
        taken += [position for position in drawn if position is not None]
    return sorted(taken[:count])


def certain(scores: Sequence[float]) -> float:
    """Return the lower bound of the mean recall of such queries, with a confidence of 95 percent.

    The deviation is at least that of one missed hit in all: a hundred queries without a miss do not prove that there is
    none.
    """
    if not scores:
        return 0.0
    deviation = float(np.std(scores))
    least = 0.1 / math.sqrt(len(scores))
    return float(np.mean(scores)) - ONE_SIDED_95 * max(deviation, least) / math.sqrt(len(scores))


def by_band(bands: Iterable[str], scores: Iterable[float]) -> dict[str, list[float]]:
    """Group the scores by band."""
    found: dict[str, list[float]] = defaultdict(list)
    for name, score in zip(bands, scores, strict=True):
        found[name].append(score)
    return dict(found)
