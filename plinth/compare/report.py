"""The results of the comparison, and their tables. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plinth.load.percentiles import ranks

MIB = 1024**2
# The ef is chosen with other queries than those whose recall is published.
BY_CHANCE = 0.01
SEARCHES = ("as a whole", "within a tenant")


@dataclass(frozen=True)
class Times:
    """Latencies of some clients in ms, and their searches per second together, some with an interval."""

    clients: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    qps: float
    samples: int
    p95_between: tuple[float, float]
    qps_between: tuple[float, float]


@dataclass(frozen=True)
class Searched:
    """One kind of search at the smallest ef that reached the target."""

    ef: int
    recall_at_10: float
    met: bool
    alone: Times
    together: Times


@dataclass(frozen=True)
class Result:
    """The result of a store: ``searched`` by the kind of search; memory in bytes, read while all clients search.

    ``busy`` is the share of the cores that other programs used before each of its rounds, on average.
    """

    name: str
    version: str
    insert_s: float
    build_s: float
    searched: dict[str, Searched]
    anonymous: int
    files: int
    busy: float

    @property
    def memory(self) -> int:
        """Return the bytes of unreclaimable memory and of mapped pages."""
        return self.anonymous + self.files


def times(rounds: Sequence[Sequence[Sequence[float]]], seconds: float, confidence: float) -> Times:
    """Return the times over the answers of all clients in all rounds of so many seconds, given the ms of each client.

    An interval goes from the best round to the worst one; that of the percentile is at least as wide as by rank, and
    ends at the slowest answer where there are too few to bound it.
    """
    each = [sorted(ms for client in one for ms in client) for one in rounds]
    every = sorted(ms for one in each for ms in one)
    clients = max((len(one) for one in rounds), default=0)
    if not every:
        return Times(clients, 0.0, 0.0, 0.0, 0.0, 0, (0.0, 0.0), (0.0, 0.0))
    below, above = ranks(len(every), 0.95, confidence)
    of_rounds = [_percentile(one, 0.95) for one in each if one]
    qps = [len(one) / seconds for one in each]
    return Times(
        clients=clients,
        p50_ms=_percentile(every, 0.5),
        p95_ms=_percentile(every, 0.95),
        p99_ms=_percentile(every, 0.99),
        qps=len(every) / (seconds * len(rounds)),
        samples=len(every),
        p95_between=(
            min(every[below - 1] if below else 0.0, *of_rounds),
            max(every[min(above, len(every)) - 1], *of_rounds),
        ),
        qps_between=(min(qps), max(qps)),
    )


def _percentile(rising: Sequence[float], share: float) -> float:
    return rising[min(len(rising) - 1, int(len(rising) * share))]


def markdown(results: Sequence[Result]) -> str:
    """Return the tables of docs/compare.md: one per kind of search, then memory and build."""
    lines: list[str] = []
    clients = max((found.together.clients for result in results for found in result.searched.values()), default=0)
    for kind in SEARCHES:
        lines += [
            f"### Searched {kind}",
            "",
            "| store | ef | recall@10 | p50 / p95 / p99 ms, 1 client "
            f"| p50 / p95 / p99 ms, {clients} clients | searches/s, {clients} |",
            "|---|---|---|---|---|---|",
        ]
        for result in results:
            if kind in result.searched:
                found = result.searched[kind]
                recall = f"{found.recall_at_10:.3f}" + ("" if found.met else " (target missed)")
                lines.append(
                    f"| {result.name} | {found.ef} | {recall} | {_percentiles(found.alone)} | "
                    f"{_percentiles(found.together)} | {found.together.qps:,.0f} |"
                )
        lines.append("")
    lines += [
        "### Memory and build",
        "",
        "| store | memory MiB | of it anonymous | insert s | insert and index s | other programs |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        version = result.version.rpartition(" ")[2]
        lines.append(
            f"| {result.name} {version} | {result.memory / MIB:,.0f} | {result.anonymous / MIB:,.0f} | "
            f"{result.insert_s:.0f} | {result.build_s:.0f} | {result.busy:.0%} |"
        )
    return "\n".join([*lines, ""])


def _percentiles(found: Times) -> str:
    return f"{found.p50_ms:.1f} / {found.p95_ms:.1f} / {found.p99_ms:.1f}"
