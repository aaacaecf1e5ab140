"""What the gateway adds to a search: the same schedules through it and directly, in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from plinth.load.aggregation import Result, Times, times
from plinth.load.server_metrics import cpu_seconds, serving
from plinth.load.slo import AddedByGateway, Profile
from plinth.load.verdict import Verdict

JUDGED = "search"
# A service also uses CPU while it is idle, which is not part of a search.
IDLE_S = 5.0


@dataclass(frozen=True)
class Added:
    """Milliseconds at one percentile of one operation: direct, through the gateway, and the difference's interval."""

    operation: str
    percentile: int
    direct: float
    through: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """Return the milliseconds that the gateway adds."""
        return self.through - self.direct


@dataclass(frozen=True)
class Cpu:
    """CPU milliseconds of one search: Qdrant's when direct; Qdrant's and the gateway's through the gateway."""

    direct: float
    qdrant: float
    gateway: float

    @property
    def ratio(self) -> float:
        """Return the CPU that the gateway adds, as a multiple of Qdrant's for a direct search."""
        return (self.qdrant + self.gateway - self.direct) / self.direct if self.direct else float("inf")


@dataclass
class Spent:
    """CPU seconds by service; ``seconds`` is filled by :func:`watched`."""

    urls: Mapping[str, str]
    seconds: dict[str, float] = field(default_factory=dict)

    def now(self) -> dict[str, float]:
        """Return the CPU seconds so far of the processes behind each address."""
        return {name: cpu_seconds(list(serving(url))) for name, url in self.urls.items()}


@contextmanager
def watched(urls: Mapping[str, str]) -> Iterator[Spent]:
    """Yield the CPU seconds that services use in the block beyond those when idle, which are measured first."""
    spent = Spent(urls)
    before, began = spent.now(), time.monotonic()
    time.sleep(IDLE_S)
    between, idled = spent.now(), time.monotonic()
    yield spent
    after, elapsed = spent.now(), time.monotonic() - idled
    for name in urls:
        idle = (between[name] - before[name]) / (idled - began)
        spent.seconds[name] = max(0.0, after[name] - between[name] - idle * elapsed)


def added(through: Sequence[Sequence[Result]], direct: Sequence[Sequence[Result]], profile: Profile) -> list[Added]:
    """Return the median and p95 of each operation."""
    ours, theirs = times(through), times(direct)
    return [
        _added(name, percentile, ours, theirs, profile.confidence)
        for name in profile.mix
        if name in ours and name in theirs
        for percentile in (50, 95)
    ]


def verdict(
    found: Sequence[Added],
    cpu: Cpu,
    goal: AddedByGateway,
    through: Verdict | None,
    direct: Verdict | None,
    late: tuple[str, ...] = (),
) -> Verdict:
    """Judge whether a search meets the goal: fail where it certainly does not, void where that is open.

    ``through`` and ``direct`` are the problems of each side's own run, ``late`` why the generator's lateness voids a
    miss.
    """
    if through:
        return through
    if direct:
        return Verdict("void", tuple(f"direct: {reason}" for reason in direct.reasons))
    judged = next((one for one in found if (one.operation, one.percentile) == (JUDGED, 95)), None)
    if judged is None:
        return Verdict("void", (f"the profile has no {JUDGED}, which the goal is about",))
    said = f"{JUDGED} p95: the gateway adds {judged.value:.1f} ms ({judged.low:.1f} to {judged.high:.1f})"
    missed = [f"{said}, more than {goal.p95_ms:g} ms"] if judged.low > goal.p95_ms else []
    if cpu.ratio > goal.cpu_ratio:
        missed.append(f"a search: the gateway adds {cpu.ratio:.1f} times Qdrant's CPU, more than {goal.cpu_ratio:g}")
    if missed:
        return Verdict("void" if late else "fail", (*late, *missed))
    if judged.high > goal.p95_ms:
        return Verdict("void", (f"{said}, so it is open whether that is below {goal.p95_ms:g} ms",))
    return Verdict("pass")


def _added(name: str, percentile: int, ours: Mapping[str, Times], theirs: Mapping[str, Times], sure: float) -> Added:
    mine, other = ours[name].response, theirs[name].response
    drawn = mine.resampled(percentile, seed=1) - other.resampled(percentile, seed=2)
    low, high = np.quantile(drawn, [(1 - sure) / 2, (1 + sure) / 2])
    return Added(name, percentile, other.at(percentile), mine.at(percentile), float(low), float(high))
