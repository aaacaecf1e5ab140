"""Merge the results of Locust's workers into the figures of a verdict; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plinth.load.dataset import LARGE_TENANT
from plinth.load.percentiles import Latencies, latencies
from plinth.load.verdict import GeneratorHealth, Operation, Recall

# The blocks of each round are numbered from 0; those of the next round follow after this number.
ROUND_BLOCKS = 1_000_000
BANDS = ((LARGE_TENANT, "over 5 %"), (0.01, "1 to 5 %"), (0.0, "under 1 %"))
Result = dict[str, Any]


@dataclass(frozen=True)
class Times:
    """The latencies of one operation, from the planned moment and from sending, and its errors by block."""

    response: Latencies
    service: Latencies
    errors: Mapping[int, int]
    first_error: str | None


def times(rounds: Sequence[Sequence[Result]]) -> dict[str, Times]:
    """Return the operations by name over all rounds and workers; histograms are added without loss."""
    parts: dict[str, list[tuple[int, Result]]] = {}
    for number, workers in enumerate(rounds):
        for result in workers:
            for name, found in result["operations"].items():
                parts.setdefault(name, []).append((number * ROUND_BLOCKS, found))
    return {name: _times(found) for name, found in parts.items()}


def _times(parts: Sequence[tuple[int, Result]]) -> Times:
    errors: Counter[int] = Counter()
    for first, found in parts:
        errors.update({first + int(block): count for block, count in found["errors"].items()})
    return Times(
        response=latencies((first, found["response"]) for first, found in parts),
        service=latencies((first, found["service"]) for first, found in parts),
        errors=errors,
        first_error=next((found["first_error"] for _, found in parts if found["first_error"]), None),
    )


def operation(found: Times, elapsed_s: float, confidence: float) -> Operation:
    """Return the figures of an operation over ``elapsed_s`` seconds."""
    return Operation(
        count=found.response.total,
        errors=sum(found.errors.values()),
        rps=found.response.total / elapsed_s,
        mean_ms=found.response.mean(),
        p50_ms=found.response.at(50),
        p95=found.response.estimate(95, confidence),
        p99=found.response.estimate(99, confidence),
        service_mean_ms=found.service.mean(),
        service_p95_ms=found.service.at(95),
        first_error=found.first_error,
    )


def elapsed(rounds: Sequence[Sequence[Result]]) -> float:
    """Return the seconds of all rounds; the workers of a round run at the same time."""
    return float(sum(max(result["elapsed_s"] for result in workers) for workers in rounds))


def generator(rounds: Sequence[Sequence[Result]]) -> GeneratorHealth:
    """Return the health of the generator over all rounds, with its worst lateness."""
    every = [result for workers in rounds for result in workers]
    seconds, processes = elapsed(rounds), max(len(workers) for workers in rounds)
    sent, cpu_s = sum(result["sent"] for result in every), sum(result["cpu_s"] for result in every)
    overhead_s = cpu_s / sent if sent else 0.0
    return GeneratorHealth(
        planned=sum(result["planned"] for result in every),
        achieved=sent,
        lag_p95_ms=max(result["lag_p95_ms"] for result in every),
        rate_per_s=sent / seconds,
        ceiling_per_s=max(_cores(workers) for workers in rounds) / overhead_s if overhead_s else 0.0,
        overhead_ms=overhead_s * 1000,
        # Poisson arrivals see time averages (PASTA).
        in_flight=sum(result["in_flight_mean"] for result in every) / len(rounds),
        processes=processes,
    )


def _cores(workers: Sequence[Result]) -> int:
    """Return the cores that a round's workers could use: one each, up to the number of their machines."""
    having = {result["host"]: result["cores"] for result in workers}
    running = Counter(result["host"] for result in workers)
    return sum(min(count, having[host]) for host, count in running.items())


def recall(rounds: Sequence[Sequence[Result]], shares: Mapping[str, float]) -> Recall | None:
    """Return the recall@10 of the searches under load, or None when the mix has none."""
    tally: dict[str, list[int]] = {}
    for workers in rounds:
        for result in workers:
            for tenant, (found, nearest) in result["recall"].items():
                counts = tally.setdefault(tenant, [0, 0])
                counts[0] += found
                counts[1] += nearest
    return recall_of(tally, shares) if tally else None


def recall_of(tally: Mapping[str, Sequence[int]], shares: Mapping[str, float]) -> Recall:
    """Compute recall from (found, nearest) by tenant, and each tenant's share of the points."""

    def over(tenants: Sequence[str]) -> float:
        found = sum(tally[tenant][0] for tenant in tenants)
        return found / sum(tally[tenant][1] for tenant in tenants)

    by_band: dict[str, list[str]] = {}
    for tenant in tally:
        band = next(name for least, name in BANDS if shares.get(tenant, 0.0) > least or least == 0)
        by_band.setdefault(band, []).append(tenant)
    return Recall(
        overall=over(list(tally)),
        large_tenants={tenant: over([tenant]) for tenant in tally if shares.get(tenant, 0.0) > LARGE_TENANT},
        bands={name: over(by_band[name]) for _, name in BANDS if name in by_band},
    )
