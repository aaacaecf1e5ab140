"""The load gate: its verdict, its schedule and its targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from plinth.errors import UserError
from plinth.load.gate import judged_rounds, pooled
from plinth.load.schedule import arrivals
from plinth.load.slo import load_slo
from plinth.load.verdict import GeneratorHealth, Measured, Operation, Verdict, judge
from plinth.qdrant.spec import load_specs
from tests.conftest import ROOT

SLO = load_slo(ROOT / "load" / "slo.yaml")
SMOKE = SLO.profile("smoke")
EMBEDDINGS = next(s for s in load_specs(ROOT / "config" / "collections") if "embeddings" in s.aliases)


def well(**changes: object) -> Measured:
    operations = {name: Operation(100, 0, 5.0, 1.0, 2.0, 3.0, 1.5) for name in SMOKE.mix}
    return replace(Measured(operations, GeneratorHealth(700, 700, 1.0, 0.2), 0.99, {"noun.act": 0.98}), **changes)  # type: ignore[arg-type]


LATE_GENERATOR = GeneratorHealth(700, 700, 50.0, 0.2)


def with_search(late: bool = False, **changes: object) -> Measured:
    measured = well(generator=LATE_GENERATOR) if late else well()
    search = replace(measured.operations["search"], **changes)  # type: ignore[arg-type]
    return replace(measured, operations={**measured.operations, "search": search})


@pytest.mark.requirement("S2-02")
@pytest.mark.parametrize(
    ("measured", "word", "reason"),
    [
        (well(), "pass", ""),
        (with_search(p95_ms=50.1), "fail", "search: p95 is 50.1 ms, over 50 ms"),
        (with_search(p99_ms=5000.0), "pass", ""),
        (with_search(errors=1, first_error="500 boom"), "fail", "1 of 101 failed; first: 500 boom"),
        (with_search(count=5), "void", "5 answers are too few"),
        (well(recall=0.9), "fail", "recall@10 is 0.900"),
        (well(recall_by_large_tenant={"noun.act": 0.4}), "fail", "large tenant noun.act is 0.400"),
        (well(generator=GeneratorHealth(700, 600, 1.0, 0.2)), "void", "600 of 700"),
        (well(generator=LATE_GENERATOR), "pass", ""),
        (with_search(p95_ms=60.0, late=True), "void", "50.0 ms late"),
        (well(generator=GeneratorHealth(700, 700, 1.0, 0.95)), "void", "95% of a core"),
        (well(generator=GeneratorHealth(0, 0, 0.0, 0.0)), "void", "0 of 0"),
        (well(unready=("the collection is yellow",)), "void", "yellow"),
        (well(operations={}), "void", "too few"),
    ],
)
def test_the_verdict(measured: Measured, word: str, reason: str) -> None:
    verdict = judge(measured, SLO, SMOKE)
    assert verdict.word == word
    assert reason in " ".join(verdict.reasons)
    assert verdict.exit_code == {"pass": 0, "fail": 1, "void": 3}[word]


def test_only_a_missed_percentile_or_a_saturated_generator_is_worth_another_round() -> None:
    assert judge(with_search(p95_ms=51.0), SLO, SMOKE).again
    assert judge(with_search(p95_ms=51.0, late=True), SLO, SMOKE).again
    assert judge(well(generator=GeneratorHealth(700, 600, 1.0, 0.2)), SLO, SMOKE).again
    for settled in (
        well(),
        well(recall=0.9),
        well(unready=("it is yellow",)),
        with_search(errors=1),
        well(operations={}),
    ):
        assert not judge(settled, SLO, SMOKE).again


SLOW, LATE, WRONG = Verdict("fail", ("slow",), True), Verdict("void", ("late",), True), Verdict("fail", ("wrong",))


@pytest.mark.parametrize(
    ("verdicts", "limit", "rounds_in_the_last"),
    [
        ([Verdict("pass")], 2, [0]),
        ([WRONG], 2, [0]),
        ([SLOW, Verdict("pass")], 2, [0, 1]),
        ([SLOW, SLOW], 2, [0, 1]),
        ([SLOW], 1, [0]),
        ([LATE, Verdict("pass")], 2, [1]),
        ([LATE, LATE], 2, [1]),
        ([LATE, SLOW, Verdict("pass")], 3, [1, 2]),
    ],
)
def test_a_slow_round_counts_on_and_a_void_one_is_thrown_away(
    verdicts: list[Verdict], limit: int, rounds_in_the_last: list[int]
) -> None:
    given_out, judged = iter(verdicts), []

    def measure(kept: Sequence[dict[str, object]]) -> Measured:
        judged.append([found["number"] for found in kept])
        return well()

    _, found = judged_rounds(limit, lambda n: {"number": n}, measure, lambda _: next(given_out), lambda _: None)
    assert found == verdicts
    assert judged[-1] == rounds_in_the_last


latencies = st.lists(st.integers(1, 59_000_000), min_size=1, max_size=300)


@given(rounds=st.lists(latencies, min_size=1, max_size=3))
def test_percentiles_over_all_rounds_are_those_of_all_answers(rounds: list[list[int]]) -> None:
    def encoded(values: list[int]) -> dict[str, object]:
        histogram = HdrHistogram(1, 60_000_000, 3)
        for value in values:
            histogram.record_value(value)
        blob = histogram.encode().decode()
        return {"response": blob, "service": blob, "errors": 1, "first_error": "x"}

    found = pooled([{"elapsed_s": 2.0, "operations": {"get": encoded(values)}} for values in rounds])["get"]
    every = [value / 1000 for values in rounds for value in values]
    assert found.count == len(every)
    assert found.errors == len(rounds)
    assert found.rps == pytest.approx(len(every) / (2 * len(rounds)))
    for percentile, got in ((50, found.p50_ms), (95, found.p95_ms), (99, found.p99_ms)):
        # Three digits; at a half rank the two rules of rounding may name neighbours.
        low, high = (np.percentile(every, percentile, method=method) for method in ("lower", "higher"))
        assert low * 0.999 - 0.001 <= got <= high * 1.001 + 0.001


numbers = st.floats(0, 1000)


@given(
    p95=numbers,
    errors=st.integers(0, 3),
    recall=st.floats(0, 1),
    lag=numbers,
    sent=st.integers(0, 700),
    count=st.integers(0, 100),
)
def test_nothing_passes_that_misses_anything(
    p95: float, errors: int, recall: float, lag: float, sent: int, count: int
) -> None:
    measured = replace(
        with_search(p95_ms=p95, errors=errors, count=count),
        recall=recall,
        generator=GeneratorHealth(700, sent, lag, 0.1),
    )
    bad = errors or recall < 0.97 or sent < 0.98 * 700 or count < SMOKE.min_samples or p95 > 50
    word = judge(measured, SLO, SMOKE).word
    assert (word == "pass") == (not bad)
    if lag > SLO.generator.max_lag_p95_ms and not errors and recall >= 0.97:
        assert word != "fail", "a busy machine was blamed on the server"


@given(rate=st.floats(1, 200), seconds=st.floats(0.1, 5), seed=st.integers())
def test_a_schedule_is_in_order_within_its_time_and_repeatable(rate: float, seconds: float, seed: int) -> None:
    plan = arrivals(rate, seconds, {"a": 3, "b": 1}, seed)
    moments = [moment for moment, _ in plan]
    assert moments == sorted(moments)
    assert all(0 < moment < seconds for moment in moments)
    assert plan == arrivals(rate, seconds, {"a": 3, "b": 1}, seed)


def test_a_schedule_keeps_its_rate_and_mix() -> None:
    plan = arrivals(100, 100, {"a": 3, "b": 1}, seed=1)
    assert len(plan) == pytest.approx(10000, rel=0.05)
    assert sum(name == "a" for _, name in plan) == pytest.approx(7500, rel=0.05)


@pytest.mark.requirement("S4-11")
def test_every_figure_of_the_requirements_is_in_the_slo_file() -> None:
    assert (SLO.operations["search"].p95_ms, SLO.operations["search"].page_ms) == (50, 100)
    p99 = {name: target.p99_ms for name, target in SLO.operations.items()}
    assert p99 == pytest.approx(
        {
            "search": 50,
            "filtered_search": 100,
            "upsert": 10,
            "upsert_batch_100": 100,
            "delete": 10,
            "get": 10,
            "scroll": 100,
        }
    )


def test_a_mistake_in_the_slo_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "slo.yaml"
    text = (ROOT / "load" / "slo.yaml").read_text()
    for wrong, words in (
        (text.replace("percentile: 95", "percentile: 90"), "profiles.smoke.percentile"),
        (text.replace("search: 46", "serch: 46"), "'serch', which has no target"),
        (text.replace("search: 46", "search: 0"), "profiles.smoke.mix.search: input should be greater than 0"),
        (text.replace("rounds: 2", "ronds: 2"), "profiles.smoke.ronds"),
        ("[]", "the file: input should be"),
        ("a: [", "cannot be read"),
    ):
        path.write_text(wrong)
        with pytest.raises(UserError, match=words):
            load_slo(path)
