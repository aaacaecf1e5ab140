"""When each request of a run is to be sent: an open loop, decided before the run begins."""

from __future__ import annotations

import random
from collections.abc import Mapping


def arrivals(rate_per_s: float, seconds: float, mix: Mapping[str, float], seed: int) -> list[tuple[float, str]]:
    """Poisson arrivals: (seconds from the start, operation), in order; the same for the same seed.

    Latency is counted from these moments, so that a server which stalls is charged for everyone who would have come
    meanwhile: a closed loop would wait with it and hide the stall.
    """
    chance = random.Random(seed)  # noqa: S311 - a reproducible schedule, not a secret
    names, weights = list(mix), list(mix.values())
    found: list[tuple[float, str]] = []
    moment = chance.expovariate(rate_per_s)
    while moment < seconds:
        found.append((moment, chance.choices(names, weights)[0]))
        moment += chance.expovariate(rate_per_s)
    return found
