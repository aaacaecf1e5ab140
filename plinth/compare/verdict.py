"""Judge the claims of load/slo.yaml by the measurements. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from plinth.compare.report import BY_CHANCE, Result, Searched, Times
from plinth.load.slo import Claim, Comparison
from plinth.load.verdict import Verdict, Word

UNITS = {"p95_ms": " ms at p95", "searches_per_s": " a second", "memory_ratio": " times"}


@dataclass(frozen=True)
class Figure:
    """The figure of a store with its interval. ``unsound`` is why it is invalid, ``busy`` why a miss is."""

    store: str
    value: float
    low: float
    high: float
    unsound: str = ""
    busy: str = ""


@dataclass(frozen=True)
class Judged:
    """A claim with the figures of its stores, the worst first."""

    claim: Claim
    figures: tuple[Figure, ...]
    verdict: Verdict


def judge(comparison: Comparison, results: Sequence[Result], points: int, dimensions: int) -> list[Judged]:
    """Judge every claim of which a store was measured, on so many points of so many dimensions."""
    wanted = comparison.data
    small = points < wanted.points or dimensions < wanted.dimensions
    too_small = Verdict(
        "void",
        (f"{points:,} x {dimensions} are less than the {wanted.points:,} x {wanted.dimensions} of load/slo.yaml",),
    )
    judged = []
    for claim in comparison.claims:
        sign = 1 if claim.at_least is not None else -1
        figures = sorted(_figures(claim, comparison, results), key=lambda figure: sign * figure.value)
        if figures:
            judged.append(Judged(claim, tuple(figures), too_small if small else _verdict(claim, figures)))
    return judged


def overall(judged: Sequence[Judged]) -> Verdict:
    """Return the verdict on the deciding claims: a missed one fails; an open one, or no claim at all, voids."""
    deciding = [one for one in judged if one.claim.decides]
    if not deciding:
        return Verdict("void", ("no store was measured that a deciding claim of load/slo.yaml is about",))
    words: tuple[Word, ...] = ("fail", "void", "pass")
    worst = next(word for word in words if any(one.verdict.word == word for one in deciding))
    said = (f"{one.claim.what}: {why}" for one in deciding if one.verdict.word == worst for why in one.verdict.reasons)
    return Verdict(worst, tuple(said))


def table(judged: Sequence[Judged]) -> str:
    """Return the claims for docs/compare.md, each with its worst figure."""
    words = {"pass": "holds", "fail": "does not hold", "void": "open"}
    lines = ["### The claims", "", "| claim | held to | found, at worst | |", "|---|---|---|---|"]
    for one in judged:
        worst = one.figures[0]
        lines.append(
            f"| {one.claim.what} | {_bound(one.claim)} | {_said(one.claim, worst)}: {worst.store} | "
            f"{words[one.verdict.word]} |"
        )
    return "\n".join([*lines, ""])


def to_json(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return the claims for compare.json."""
    return [
        {
            "claim": one.claim.model_dump(exclude_none=True),
            "verdict": one.verdict.word,
            "reasons": one.verdict.reasons,
            "figures": [asdict(figure) for figure in one.figures],
        }
        for one in judged
    ]


def _figures(claim: Claim, comparison: Comparison, results: Sequence[Result]) -> Iterator[Figure]:
    by_name = {result.name: result for result in results}
    for result in results:
        if not result.name.startswith(claim.of):
            continue
        busy = (
            f"other programs used {result.busy:.0%} of the cores, {comparison.max_busy:.0%} at most for a miss to count"
            if result.busy > comparison.max_busy
            else ""
        )
        if claim.beside is None:
            for kind, searched in result.searched.items():
                yield Figure(
                    f"{result.name}, {kind}", *_showed(claim, searched.together), _unsound(searched, comparison), busy
                )
        elif claim.beside in by_name:
            ratio = result.memory / by_name[claim.beside].memory
            yield Figure(f"{result.name} over {claim.beside}", ratio, ratio, ratio, busy=busy)


def _showed(claim: Claim, found: Times) -> tuple[float, float, float]:
    if claim.figure == "p95_ms":
        return found.p95_ms, *found.p95_between
    return found.qps, *found.qps_between


def _unsound(searched: Searched, comparison: Comparison) -> str:
    if searched.recall_at_10 < comparison.recall - BY_CHANCE:
        return f"its recall@10 is {searched.recall_at_10:.3f}, {comparison.recall} is compared"
    if searched.together.samples < comparison.min_samples:
        return f"{searched.together.samples} answers are too few, {comparison.min_samples} are needed"
    return ""


def _verdict(claim: Claim, figures: Sequence[Figure]) -> Verdict:
    missed, open_ = [], []
    for figure in figures:
        said = f"{_said(claim, figure)} of {figure.store}, {_bound(claim)} is claimed"
        if figure.unsound:
            open_.append(f"{said}; {figure.unsound}")
        elif _misses(claim, figure) and not figure.busy:
            missed.append(said)
        elif not _meets(claim, figure):
            open_.append(f"{said}; {figure.busy or 'measure longer'}")
    if missed:
        return Verdict("fail", tuple(missed))
    return Verdict("void", tuple(open_)) if open_ else Verdict("pass")


def _meets(claim: Claim, figure: Figure) -> bool:
    if claim.at_most is not None:
        return figure.high <= claim.at_most
    return figure.low >= (claim.at_least or 0)


def _misses(claim: Claim, figure: Figure) -> bool:
    if claim.at_most is not None:
        return figure.low > claim.at_most
    return figure.high < (claim.at_least or 0)


def _bound(claim: Claim) -> str:
    word, bound = ("at most", claim.at_most) if claim.at_most is not None else ("at least", claim.at_least)
    return f"{word} {bound:,g}{UNITS[claim.figure]}"


def _said(claim: Claim, figure: Figure) -> str:
    said = f"{_number(claim, figure.value)}{UNITS[claim.figure]}"
    if figure.low == figure.high:
        return said
    return f"{said} (may be {_number(claim, figure.low)} to {_number(claim, figure.high)})"


def _number(claim: Claim, value: float) -> str:
    return f"{value:,.0f}" if claim.figure == "searches_per_s" else f"{value:.1f}"
