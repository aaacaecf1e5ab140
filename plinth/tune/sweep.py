"""The order in which settings are tried within a time budget. It knows no engine: a trial is a function.

1. Every graph is built once. One that misses the floor in every way to search it is dropped: a second build can only be
worse, for the worst build counts.
2. The remaining ones are built again, the fastest first: a graph differs from build to build on the same data.
3. The best is built once more and searched with queries that had no part in its choice; if it fails, the next best.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from plinth.tune.pareto import Outcome, Point, choose, pareto, point
from plinth.tune.search_space import Build, Search

FIRST_PASS = 0.6
Queries = Literal["chosen by", "held out"]
Trial = Callable[[Build, Queries, Sequence[Search] | None], dict[Search, Outcome]]
"""Build a graph anew and search it: in every way, or only in those given."""


@dataclass
class Tuned:
    """The result. ``confirmed`` is the chosen point on its last build, by queries that had no part in the choice.

    ``refuted`` are points that such queries did not confirm. ``promising`` says that a graph met the floor in its first
    build, so that the question is still open when the budget ends.
    """

    tried: dict[Build, list[dict[Search, Outcome]]] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    chosen: Point | None = None
    confirmed: Point | None = None
    refuted: list[Point] = field(default_factory=list)
    left_out: int = 0
    ran_out: bool = False
    promising: bool = False

    @property
    def exit_code(self) -> int:
        """0 if settings were chosen, 1 if nothing meets the floor, 3 if the budget ended without a proof."""
        return 0 if self.chosen else 3 if self.ran_out and self.promising else 1

    def sentence(self, floor: float) -> str:
        """Describe the result, and what to do about it."""
        if self.chosen and self.confirmed:
            return (
                f"{self.chosen.build}, {self.chosen.search}: recall {self.chosen.worst:.3f} or more in "
                f"{self.chosen.builds} builds, {self.confirmed.worst:.3f} in another by held-out queries."
            )
        if self.exit_code == 3:
            return "The budget ended before a choice was proved; give more with --budget-s, or try fewer --points."
        untried = f", and {self.left_out} graphs were left out for want of time" if self.left_out else ""
        return (
            f"Nothing that was tried meets recall {floor:g} for every size of tenant{untried}; lower --floor, "
            "or search large tenants exactly (params.exact)."
        )

    @property
    def front(self) -> list[Point]:
        """Return the points worth having among all that were built twice."""
        return pareto(self.points)


def sweep(
    builds: Sequence[Build],
    trial: Trial,
    memory: Callable[[Build], float],
    *,
    floor: float,
    budget_s: float,
    repeats: int = 2,
    clock: Callable[[], float] = time.monotonic,
    on_progress: Callable[[str], None] = lambda _words: None,
) -> Tuned:
    """Try, choose and confirm. ``repeats`` is how often a graph is built before it can be chosen."""
    began, longest = clock(), 0.0
    found = Tuned()

    def time_for_one(share: float = 1.0) -> bool:
        return clock() - began + longest <= budget_s * share

    def run(build: Build, queries: Queries, only: Sequence[Search] | None = None) -> dict[Search, Outcome]:
        nonlocal longest
        start = clock()
        outcomes = trial(build, queries, only)
        longest = max(longest, clock() - start)
        return outcomes

    for number, build in enumerate(builds):
        if not time_for_one(FIRST_PASS):
            found.left_out = len(builds) - number
            on_progress(f"the budget leaves out {found.left_out} of {len(builds)} graphs")
            break
        found.tried[build] = [run(build, "chosen by")]
        on_progress(f"graph {number + 1} of {len(builds)}: {build}: {_words(build, found, floor, memory)}")
    survivors, found.promising = _survivors(found, floor, memory)
    for build in survivors:
        while len(found.tried[build]) < repeats and time_for_one():
            found.tried[build].append(run(build, "chosen by"))
            on_progress(f"build {len(found.tried[build])}: {build}: {_words(build, found, floor, memory)}")
    found.ran_out = any(len(found.tried[build]) < repeats for build in survivors)
    found.points = [
        each for build in found.tried if len(found.tried[build]) >= repeats for each in _points(build, found, memory)
    ]
    while candidate := choose([each for each in found.points if each not in found.refuted], floor):
        if not time_for_one():
            found.ran_out = True
            break
        outcome = run(candidate.build, "held out", [candidate.search])[candidate.search]
        checked = point(candidate.build, candidate.search, [outcome], candidate.memory)
        if checked.worst >= floor:
            found.chosen, found.confirmed = candidate, checked
            break
        found.refuted.append(candidate)
        on_progress(f"refuted by held-out queries ({checked.worst:.3f}): {candidate.build}, {candidate.search}")
    return found


def _points(build: Build, found: Tuned, memory: Callable[[Build], float]) -> list[Point]:
    rounds = found.tried[build]
    common = [search for search in rounds[0] if all(search in outcomes for outcomes in rounds)]
    return [point(build, search, [outcomes[search] for outcomes in rounds], memory(build)) for search in common]


def _survivors(found: Tuned, floor: float, memory: Callable[[Build], float]) -> tuple[list[Build], bool]:
    """Return the graphs that meet the floor in some way, the fastest first; else the best by recall."""
    best = {build: choose(_points(build, found, memory), floor) for build in found.tried}
    good = [(candidate.p50_ms, build) for build, candidate in best.items() if candidate]
    if good:
        return [build for _, build in sorted(good, key=lambda pair: pair[0])], True
    # Nothing will be chosen; the front of the most promising graph still shows how far it is from the floor.
    return sorted(found.tried, key=lambda build: -max(each.worst for each in _points(build, found, memory)))[:1], False


def _words(build: Build, found: Tuned, floor: float, memory: Callable[[Build], float]) -> str:
    points = _points(build, found, memory)
    best = choose(points, floor)
    if best:
        return f"recall {best.worst:.3f} at {best.p50_ms:.2f} ms ({best.search})"
    highest = max(points, key=lambda each: each.worst)
    band = min(highest.recall, key=lambda name: highest.recall[name])
    return f"misses the floor: {highest.worst:.3f} for {band} at best"
