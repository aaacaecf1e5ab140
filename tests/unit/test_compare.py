"""The figures of `make compare`: percentiles over all clients, and tables that hide no missed target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.compare.report import MIB, Result, Searched, Times, markdown, times


@given(st.lists(st.lists(st.floats(0.01, 1e4), max_size=200), min_size=1, max_size=8), st.integers(1, 60))
def test_percentiles_are_over_the_answers_of_all_clients(of_clients: list[list[float]], seconds: int) -> None:
    found = times(of_clients, len(of_clients), seconds)
    every = [ms for client in of_clients for ms in client]
    assert (found.clients, found.samples) == (len(of_clients), len(every))
    assert found.qps == pytest.approx(len(every) / seconds)
    if every:
        assert min(every) <= found.p50_ms <= found.p95_ms <= found.p99_ms <= max(every)
        assert sum(ms <= found.p95_ms for ms in every) >= 0.95 * len(every)
        assert sum(ms < found.p95_ms for ms in every) <= 0.95 * len(every)


def test_a_slow_client_shows_though_the_others_are_quick() -> None:
    found = times([[1.0] * 90, [100.0] * 10], clients=2, seconds=1)
    assert (found.p50_ms, found.p95_ms) == (1.0, 100.0)


def test_the_table_says_which_store_missed_the_recall() -> None:
    good, bad = (Searched(64, recall, recall > 0.96, *[Times(1, 1.5, 2, 3, 400, 4000)] * 2) for recall in (0.97, 0.9))
    results = [
        Result("one", "1.0", 5, 9, {"whole": good, "within a tenant": good}, 30 * MIB, 12 * MIB, 0.25),
        Result("two", "2.0", 5, 9, {"whole": bad}, 30 * MIB, 0, 0.0),
    ]
    lines = markdown(results).splitlines()
    assert "| one | 64 | 0.970 | 1.5 / 2.0 / 3.0 | 1.5 / 2.0 / 3.0 | 400 |" in lines
    assert "| two | 64 | 0.900 (target missed) | 1.5 / 2.0 / 3.0 | 1.5 / 2.0 / 3.0 | 400 |" in lines
    assert "| one 1.0 | 42 | 30 | 5 | 9 | 25% |" in lines
