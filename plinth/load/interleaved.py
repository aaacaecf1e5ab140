"""Compare two servers by alternating rounds, as a ratio.

A machine that is busier in the evening is so for both, so a ratio of alternating rounds shows what two runs on two days
cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from plinth.load.aggregation import Result, Times, times
from plinth.load.baseline import TOLERANCE
from plinth.load.gate import Send
from plinth.load.locust_runner import Schedule
from plinth.load.slo import Profile
from plinth.load.verdict import Verdict

PAIRS = 4


@dataclass(frozen=True)
class Ratio:
    """Our latency over theirs, at one percentile of one operation, with its interval; above 1 ours is slower."""

    operation: str
    percentile: int
    value: float
    low: float
    high: float


def interleaved(
    ours: Send, theirs: Send, profile: Profile, on_round: Callable[[int, int], None], pairs: int = PAIRS
) -> tuple[list[list[Result]], list[list[Result]]]:
    """Run rounds of the same schedules on both servers, in alternating order.

    ``on_round`` is called with the number of the round, from 1, and the server: 0 ours, 1 theirs.
    """
    found: tuple[list[list[Result]], list[list[Result]]] = ([], [])
    for number in range(pairs):
        schedule = Schedule(
            profile.rate_per_s, profile.warmup_s, profile.duration_s, profile.mix, number, profile.processes
        )
        for side in ((0, 1), (1, 0))[number % 2]:
            on_round(number + 1, side)
            found[side].append((ours, theirs)[side](schedule))
    return found


def ratios(ours: Sequence[Sequence[Result]], theirs: Sequence[Sequence[Result]], profile: Profile) -> list[Ratio]:
    """Return the median and the judged percentile of each operation."""
    mine, other = times(ours), times(theirs)
    return [
        _ratio(name, percentile, mine, other, profile.confidence)
        for name in profile.mix
        if name in mine and name in other
        for percentile in (50, profile.percentile)
    ]


def verdict(
    found: Sequence[Ratio],
    ours: Verdict | None,
    theirs: Verdict | None,
    late: tuple[str, ...] = (),
    tolerance: float = TOLERANCE,
) -> Verdict:
    """Judge the ratios: fail where ours is certainly slower by more than the tolerance, void where it may be.

    ``ours`` and ``theirs`` are the problems of each side's own run (`verdict.soundness`): a server that returns errors
    or the wrong points is fast. ``late`` is why the generator's lateness voids a miss (`verdict.lateness`).
    """
    if ours:
        return ours
    if theirs:
        return Verdict("void", tuple(f"the other side: {reason}" for reason in theirs.reasons))
    slower = [ratio for ratio in found if ratio.low > tolerance]
    if slower:
        words = tuple(f"{_words(ratio)}: slower" for ratio in slower)
        return Verdict("void", (*late, *words)) if late else Verdict("fail", words)
    open_ = [ratio for ratio in found if ratio.high > tolerance]
    return Verdict("void", tuple(f"{_words(ratio)}: open" for ratio in open_)) if open_ else Verdict("pass")


def _ratio(name: str, percentile: int, ours: Mapping[str, Times], theirs: Mapping[str, Times], sure: float) -> Ratio:
    mine, other = ours[name].response, theirs[name].response
    drawn = mine.resampled(percentile, seed=1) / other.resampled(percentile, seed=2)
    low, high = np.quantile(drawn, [(1 - sure) / 2, (1 + sure) / 2])
    return Ratio(name, percentile, mine.at(percentile) / other.at(percentile), float(low), float(high))


def _words(ratio: Ratio) -> str:
    return f"{ratio.operation} p{ratio.percentile} {ratio.value:.2f} times ({ratio.low:.2f} to {ratio.high:.2f})"
