"""The verdict: a pure function of what was measured and what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from plinth.load.slo import Profile, Slo

Word = Literal["pass", "fail", "void"]


@dataclass(frozen=True)
class Operation:
    """One operation's measurements; latencies in milliseconds from the planned moment, errors not among them."""

    count: int
    errors: int
    rps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    service_p95_ms: float
    first_error: str | None = None


@dataclass(frozen=True)
class GeneratorHealth:
    """How the load generator fared: arrivals planned and made, its delay at the 95th percentile, its core's use."""

    planned: int
    achieved: int
    lag_p95_ms: float
    cpu_share: float


@dataclass(frozen=True)
class Measured:
    """Everything that a verdict rests on. ``unready`` are sentences about the index, before or after."""

    operations: Mapping[str, Operation]
    generator: GeneratorHealth
    recall: float
    recall_by_large_tenant: Mapping[str, float]
    unready: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """``fail`` when the server missed something, ``void`` when the run says nothing, with the reasons.

    ``again`` says that another round may tell more: a percentile was missed, or the generator was kept from its work.
    """

    word: Word
    reasons: tuple[str, ...] = field(default=())
    again: bool = False

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 void."""
        return {"pass": 0, "fail": 1, "void": 3}[self.word]


def judge(measured: Measured, slo: Slo, profile: Profile) -> Verdict:
    """A run with errors or wrong answers fails whatever else holds; an invalid one says nothing of speed."""
    wrong = tuple(_wrong(measured, slo))
    if wrong:
        return Verdict("fail", wrong)
    saturated, scarce = tuple(_saturated(measured, slo)), tuple(_scarce(measured, profile))
    if measured.unready or saturated or scarce:
        return Verdict("void", (*measured.unready, *saturated, *scarce), again=bool(saturated))
    slow = tuple(_slow(measured, slo, profile))
    if not slow:
        return Verdict("pass")
    # Latency counts from the planned moment, so lateness can only add to it: it casts doubt on a miss, never on a pass.
    late = tuple(_late(measured, slo))
    return Verdict("void", (*late, *slow), again=True) if late else Verdict("fail", slow, again=True)


def _wrong(measured: Measured, slo: Slo) -> Iterator[str]:
    for name, operation in measured.operations.items():
        if operation.errors:
            total = operation.count + operation.errors
            yield f"{name}: {operation.errors} of {total} failed; first: {operation.first_error}"
    if measured.recall < slo.recall.overall:
        yield f"recall@10 is {measured.recall:.3f}, below {slo.recall.overall}"
    for tenant, recall in measured.recall_by_large_tenant.items():
        if recall < slo.recall.large_tenant:
            yield f"recall@10 within the large tenant {tenant} is {recall:.3f}, below {slo.recall.large_tenant}"


def _saturated(measured: Measured, slo: Slo) -> Iterator[str]:
    generator = measured.generator
    if generator.planned == 0 or generator.achieved < slo.generator.min_achieved_share * generator.planned:
        yield f"only {generator.achieved} of {generator.planned} planned requests were sent"
    if generator.cpu_share > slo.generator.max_cpu_share:
        yield f"the generator took {generator.cpu_share:.0%} of a core (at most {slo.generator.max_cpu_share:.0%})"


def _late(measured: Measured, slo: Slo) -> Iterator[str]:
    if measured.generator.lag_p95_ms > slo.generator.max_lag_p95_ms:
        yield (
            f"the generator ran {measured.generator.lag_p95_ms:.1f} ms late at the 95th percentile (at most "
            f"{slo.generator.max_lag_p95_ms:.0f} for a miss to count): this machine is too busy, end what else runs"
        )


def _scarce(measured: Measured, profile: Profile) -> Iterator[str]:
    for name in profile.mix:
        operation = measured.operations.get(name)
        count = operation.count if operation else 0
        if count < profile.min_samples:
            yield f"{name}: {count} answers are too few for a percentile, {profile.min_samples} are needed"


def _slow(measured: Measured, slo: Slo, profile: Profile) -> Iterator[str]:
    for name, operation in measured.operations.items():
        target = slo.operations[name].at(profile.percentile)
        latency = operation.p95_ms if profile.percentile == 95 else operation.p99_ms
        if latency > target:
            yield f"{name}: p{profile.percentile} is {latency:.1f} ms, over {target:.0f} ms at {operation.rps:.1f}/s"
