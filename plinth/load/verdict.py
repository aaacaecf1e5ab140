"""The verdict on a run: pass, fail, or void where the run proves nothing; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isinf
from typing import Literal

from plinth.load.percentiles import Estimate
from plinth.load.slo import CREATE, Profile, Slo
from plinth.load.slo import Recall as Floors

Word = Literal["pass", "fail", "void"]
Again = Literal["beside", "instead"]
# Little's law: the mean number in flight is the rate times the mean time. Both sides are measured independently.
LITTLE_SHARE = 0.3
LITTLE_SLACK = 0.3


@dataclass(frozen=True)
class Operation:
    """The figures of one operation. Latency is counted from the planned moment, service from the moment of sending."""

    count: int
    errors: int
    rps: float
    mean_ms: float
    p50_ms: float
    p95: Estimate
    p99: Estimate
    service_mean_ms: float
    service_p95_ms: float
    first_error: str | None = None

    def at(self, percentile: int) -> Estimate:
        """Return the judged percentile."""
        return self.p95 if percentile == 95 else self.p99


@dataclass(frozen=True)
class GeneratorHealth:
    """The health of the generator: requests planned and sent, lateness, CPU cost, and requests in flight.

    ``ceiling_per_s`` is what its processes could send with a core each, where their machines have as many;
    ``overhead_ms`` is the CPU time per request.
    """

    planned: int
    achieved: int
    lag_p95_ms: float
    rate_per_s: float
    ceiling_per_s: float
    overhead_ms: float
    in_flight: float
    processes: int = 1

    @property
    def headroom(self) -> float:
        """Return the ceiling as a multiple of the rate."""
        return self.ceiling_per_s / self.rate_per_s if self.rate_per_s else 0.0


@dataclass(frozen=True)
class Recall:
    """The recall@10 against an exact search: over all queries, within each large tenant, and by the tenants' size."""

    overall: float
    large_tenants: Mapping[str, float]
    bands: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """The figures of a verdict. ``recall`` is by the time of its measurement; ``unready`` lists what was not ready."""

    operations: Mapping[str, Operation]
    generator: GeneratorHealth
    recall: Mapping[str, Recall]
    unready: tuple[str, ...] = ()

    @property
    def in_flight_expected(self) -> float:
        """Return the mean requests in flight by Little's law: rate times time, over requests sent at a rate."""
        sent = (found for name, found in self.operations.items() if name != CREATE)
        return sum(found.rps * found.service_mean_ms / 1000 for found in sent)


@dataclass(frozen=True)
class Verdict:
    """The verdict with its reasons: ``fail`` when the server missed something, ``void`` when the run proves nothing.

    ``again`` means that another round may tell more: ``beside`` this one where a percentile was missed or open,
    ``instead`` of it where the generator was disturbed.
    """

    word: Word
    reasons: tuple[str, ...] = ()
    again: Again | None = None

    @property
    def exit_code(self) -> int:
        """Return the exit code: 0 pass, 1 fail, 3 void."""
        return {"pass": 0, "fail": 1, "void": 3}[self.word]


def judge(measured: Measured, slo: Slo, profile: Profile) -> Verdict:
    """Judge the validity of the answers first, and then their latency."""
    unsound = soundness(measured, slo, profile)
    if unsound:
        return unsound
    missed, open_ = tuple(_missed(measured, slo, profile)), tuple(_open(measured, slo, profile))
    if not missed and not open_:
        return Verdict("pass")
    # Latency counts from the planned moment, so lateness can only add to it: it casts doubt on a miss, never on a pass.
    late = lateness(measured, slo)
    if late:
        return Verdict("void", (*late, *missed, *open_), "instead")
    return Verdict("fail", missed, "beside") if missed else Verdict("void", open_, "beside")


def soundness(measured: Measured, slo: Slo, profile: Profile) -> Verdict | None:
    """Return the verdict on a run without a valid measurement of speed, or None for a valid run.

    Errors or wrong answers fail the run, whatever else holds; an invalid measurement voids it.
    """
    wrong = tuple(_wrong(measured, slo))
    if wrong:
        return Verdict("fail", wrong)
    saturated, scarce = tuple(_saturated(measured, slo)), tuple(_scarce(measured, profile))
    if measured.unready or saturated or scarce:
        return Verdict("void", (*measured.unready, *saturated, *scarce), "instead" if saturated else None)
    return None


def _wrong(measured: Measured, slo: Slo) -> Iterator[str]:
    for name, operation in measured.operations.items():
        if operation.errors:
            total = operation.count + operation.errors
            yield f"{name}: {operation.errors} of {total} failed; first: {operation.first_error}"
    for when, recall in measured.recall.items():
        yield from below_floor(when, recall, slo.recall)


def below_floor(when: str, recall: Recall, floors: Floors) -> Iterator[str]:
    """Yield where recall misses a floor: overall, within the tenants of a size, within a large one."""
    if recall.overall < floors.overall:
        yield f"recall@10 {when} is {recall.overall:.3f}, below {floors.overall}"
    for band, found in recall.bands.items():
        if found < floors.tenant_band:
            yield f"recall@10 {when} within tenants of {band} of the points is {found:.3f}, below {floors.tenant_band}"
    for tenant, found in recall.large_tenants.items():
        if found < floors.large_tenant:
            yield f"recall@10 {when} within the large tenant {tenant} is {found:.3f}, below {floors.large_tenant}"


def _saturated(measured: Measured, slo: Slo) -> Iterator[str]:
    generator = measured.generator
    if generator.planned == 0 or generator.achieved < slo.generator.min_achieved_share * generator.planned:
        yield f"only {generator.achieved} of {generator.planned} planned requests were sent"
    if generator.headroom < slo.generator.min_headroom:
        yield (
            f"the generator could send {generator.ceiling_per_s:.0f}/s with {generator.processes} process(es), less "
            f"than {slo.generator.min_headroom:.0f} times the rate of {generator.rate_per_s:.0f}/s; "
            "give the profile more processes"
        )
    expected = measured.in_flight_expected
    if abs(expected - generator.in_flight) > LITTLE_SLACK + LITTLE_SHARE * expected:
        yield (
            f"{generator.in_flight:.1f} requests were in flight where rate times time gives {expected:.1f}; "
            "the figures contradict each other"
        )


def lateness(measured: Measured, slo: Slo) -> tuple[str, ...]:
    """Return why the generator's lateness invalidates a missed target; empty where it does not."""
    if measured.generator.lag_p95_ms <= slo.generator.max_lag_p95_ms:
        return ()
    return (
        f"the generator ran {measured.generator.lag_p95_ms:.1f} ms late at the 95th percentile (at most "
        f"{slo.generator.max_lag_p95_ms:.0f} for a miss to count): this machine is too busy, end what else runs",
    )


def _scarce(measured: Measured, profile: Profile) -> Iterator[str]:
    for name in profile.mix:
        operation = measured.operations.get(name)
        count = operation.count if operation else 0
        if count < profile.min_samples:
            yield f"{name}: {count} answers are too few for a percentile, {profile.min_samples} are needed"


def _missed(measured: Measured, slo: Slo, profile: Profile) -> Iterator[str]:
    for name, operation in measured.operations.items():
        target, found = slo.operations[name].at(profile.percentile), operation.at(profile.percentile)
        if found.low > target:
            said = f"p{profile.percentile} is {found.value:.1f} ms, over {target:.0f} ms"
            yield f"{name}: {said} at {operation.rps:.1f}/s"


def _open(measured: Measured, slo: Slo, profile: Profile) -> Iterator[str]:
    for name, operation in measured.operations.items():
        target, found = slo.operations[name].at(profile.percentile), operation.at(profile.percentile)
        if found.low <= target < found.high:
            high = "any" if isinf(found.high) else f"{found.high:.1f}"
            yield (
                f"{name}: p{profile.percentile} is {found.value:.1f} ms and may be {found.low:.1f} to {high}, "
                f"so it is open whether it meets {target:.0f} ms; measure longer"
            )
