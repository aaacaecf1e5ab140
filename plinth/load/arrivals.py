"""The send times of the requests of a run: an open loop, planned before the run begins."""

from __future__ import annotations

import random
from collections.abc import Mapping


def arrivals(rate_per_s: float, seconds: float, mix: Mapping[str, float], seed: int) -> list[tuple[float, str]]:
    """Return Poisson arrivals: (seconds from the start, operation), in order; the same for the same seed.

    Latency is counted from these times, so that a stall of the server delays every request that arrives during it. A
    closed loop would wait with the server and hide the stall.
    """
    chance = random.Random(seed)  # noqa: S311 - a reproducible schedule, not a secret
    names, weights = list(mix), list(mix.values())
    found: list[tuple[float, str]] = []
    moment = chance.expovariate(rate_per_s)
    while moment < seconds:
        found.append((moment, chance.choices(names, weights)[0]))
        moment += chance.expovariate(rate_per_s)
    return found
