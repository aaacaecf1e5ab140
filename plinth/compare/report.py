"""What was measured, as a table and as sentences on the claims of S1-12. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

MIB = 1024**2
SEARCHES = ("whole", "within a tenant")


@dataclass(frozen=True)
class Times:
    """Latencies of some clients in ms, and their searches a second together."""

    clients: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    qps: float
    samples: int


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
    """A store: ``searched`` by the kind of search; memory in bytes, read while four clients search.

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
        """What cannot be taken back, and the mapped pages."""
        return self.anonymous + self.files


def times(of_clients: Sequence[Sequence[float]], clients: int, seconds: float) -> Times:
    """Percentiles over the answers of all ``clients`` in all rounds, which took ``seconds`` together."""
    every = sorted(ms for client in of_clients for ms in client)
    if not every:
        return Times(clients, 0.0, 0.0, 0.0, 0.0, 0)

    def percentile(share: float) -> float:
        return every[min(len(every) - 1, int(len(every) * share))]

    return Times(clients, percentile(0.5), percentile(0.95), percentile(0.99), len(every) / seconds, len(every))


def to_json(machine: dict[str, Any], data: dict[str, Any], results: Sequence[Result], left_out: dict[str, str]) -> Any:
    """Everything, for compare.json."""
    return {"machine": machine, "data": data, "results": [asdict(result) for result in results], "left_out": left_out}


def markdown(results: Sequence[Result]) -> str:
    """The tables of docs/compare.md: one a kind of search, then memory and build."""
    lines: list[str] = []
    for kind in SEARCHES:
        lines += [
            f"### Searched {'as a whole' if kind == 'whole' else kind}",
            "",
            "| store | ef | recall@10 | p50 / p95 / p99 ms, 1 client | p50 / p95 / p99 ms, 4 clients | searches/s, 4 |",
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
    lines += [
        f"| {result.name} {result.version} | {result.memory / MIB:,.0f} | {result.anonymous / MIB:,.0f} | "
        f"{result.insert_s:.0f} | {result.build_s:.0f} | {result.busy:.0%} |"
        for result in results
    ]
    return "\n".join([*lines, ""])


def _percentiles(found: Times) -> str:
    return f"{found.p50_ms:.1f} / {found.p95_ms:.1f} / {found.p99_ms:.1f}"
