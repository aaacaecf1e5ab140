"""`make compare`: percentiles over all clients, tables that hide no missed target, and the verdict on the claims."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.compare.report import MIB, Result, Searched, Times, markdown, times
from plinth.compare.verdict import judge, overall, table
from plinth.load.slo import load_slo
from plinth.load.verdict import Verdict
from tests.conftest import ROOT

SLO = load_slo(ROOT / "load" / "slo.yaml")
assert SLO.comparison
COMPARISON = SLO.comparison
TIMES = Times(4, 1.5, 2, 3, 1500, 6000, (1.8, 2.2), (1400, 1600))
SEARCHED = Searched(64, 0.97, True, TIMES, TIMES)
OURS = Result(
    "Qdrant, int8", "1.0", 5, 9, {"as a whole": SEARCHED, "within a tenant": SEARCHED}, 30 * MIB, 12 * MIB, 0.02
)
CHROMA = replace(OURS, name="Chroma", anonymous=300 * MIB)


def ours(busy: float = 0.02, recall: float = 0.97, **changes: object) -> Result:
    """Our store, with searches within a tenant changed."""
    within = replace(SEARCHED, recall_at_10=recall, together=replace(TIMES, **changes))  # type: ignore[arg-type]
    return replace(OURS, busy=busy, searched={"as a whole": SEARCHED, "within a tenant": within})


def verdict(*results: Result, points: int = 20000) -> Verdict:
    return overall(judge(COMPARISON, results, points, 768))


@given(
    st.lists(
        st.lists(st.lists(st.floats(0.01, 1e4), max_size=60), min_size=2, max_size=2),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 60),
)
def test_percentiles_are_over_the_answers_of_all_clients_in_all_rounds(
    rounds: list[list[list[float]]], seconds: int
) -> None:
    found = times(rounds, seconds, 0.95)
    every = [ms for clients in rounds for client in clients for ms in client]
    assert (found.clients, found.samples) == (2, len(every))
    assert found.qps == pytest.approx(len(every) / (seconds * len(rounds)))
    if every:
        assert min(every) <= found.p50_ms <= found.p95_ms <= found.p99_ms <= max(every)
        assert sum(ms <= found.p95_ms for ms in every) >= 0.95 * len(every)
        assert sum(ms < found.p95_ms for ms in every) <= 0.95 * len(every)
        assert found.p95_between[0] <= found.p95_ms <= found.p95_between[1]
        low, high = found.qps_between
        assert low <= found.qps * (1 + 1e-9)
        assert high >= found.qps * (1 - 1e-9)


def test_a_slow_client_shows_though_the_others_are_quick() -> None:
    found = times([[[1.0] * 90, [100.0] * 10]], seconds=1, confidence=0.95)
    assert (found.p50_ms, found.p95_ms) == (1.0, 100.0)


def test_a_slow_round_widens_the_interval() -> None:
    found = times([[[1.0] * 1000], [[1.0] * 1000], [[30.0] * 10]], seconds=1, confidence=0.95)
    assert (found.p95_ms, found.p95_between, found.qps_between) == (1.0, (1.0, 30.0), (10.0, 1000.0))


def test_the_table_says_which_store_missed_the_recall() -> None:
    bad = replace(SEARCHED, recall_at_10=0.9, met=False)
    lines = markdown([OURS, replace(OURS, name="two", searched={"as a whole": bad}, busy=0.25)]).splitlines()
    assert "| Qdrant, int8 | 64 | 0.970 | 1.5 / 2.0 / 3.0 | 1.5 / 2.0 / 3.0 | 1,500 |" in lines
    assert "| two | 64 | 0.900 (target missed) | 1.5 / 2.0 / 3.0 | 1.5 / 2.0 / 3.0 | 1,500 |" in lines
    assert "| two 1.0 | 42 | 30 | 5 | 9 | 25% |" in lines


@pytest.mark.requirement("S1-12")
@pytest.mark.parametrize(
    ("result", "word", "reason"),
    [
        (ours(), "pass", ""),
        (ours(p95_ms=25, p95_between=(21, 30)), "fail", "25.0 ms at p95 (may be 21.0 to 30.0) of Qdrant, int8, within"),
        (ours(p95_ms=19, p95_between=(18, 22)), "void", "at most 20 ms at p95 is claimed; measure longer"),
        (ours(qps=700, qps_between=(650, 800)), "fail", "700 a second (may be 650 to 800) of Qdrant, int8, within a"),
        (ours(qps=1100, qps_between=(900, 1300)), "void", "at least 1,000 a second is claimed; measure longer"),
        (ours(samples=199), "void", "199 answers are too few, 600 are needed"),
        # Quick because it looks at less is not quick.
        (ours(recall=0.9), "void", "its recall@10 is 0.900, 0.97 is compared"),
        (ours(busy=0.5, qps=700, qps_between=(650, 800)), "void", "other programs used 50% of the cores, 10% at most"),
        # A busy machine cannot help a store to meet a claim.
        (ours(busy=0.5), "pass", ""),
    ],
)
def test_the_worse_kind_of_search_decides_what_is_claimed_of_our_stores(result: Result, word: str, reason: str) -> None:
    found = verdict(result)
    assert found.word == word
    assert reason in " ".join(found.reasons)


def test_a_miss_is_worth_more_than_an_open_claim() -> None:
    found = verdict(ours(qps=700, qps_between=(650, 800), p95_ms=19, p95_between=(18, 22)))
    assert (found.exit_code, len(found.reasons)) == (1, 1)


def test_less_data_than_the_file_has_and_no_store_of_ours_say_nothing() -> None:
    assert "1,500 x 768 are less than the 20,000 x 768" in verdict(OURS, points=1500).reasons[0]
    assert verdict(CHROMA).exit_code == 3


def test_what_is_said_of_other_stores_is_shown_and_decides_nothing() -> None:
    judged = judge(COMPARISON, [OURS, CHROMA], 20000, 768)
    assert overall(judged).word == "pass"
    lines = table(judged).splitlines()
    found = "2.0 ms at p95 (may be 1.8 to 2.2): Chroma, as a whole | does not hold |"
    assert f"| Chroma takes 50 to 200 ms | at least 50 ms at p95 | {found}" in lines
    # 312 MiB beside 42.
    assert any("7.4 times: Chroma over Qdrant, int8 | holds |" in line for line in lines)
