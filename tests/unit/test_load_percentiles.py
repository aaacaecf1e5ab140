"""Percentiles and the intervals that they lie in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from plinth.load.aggregation import times
from plinth.load.percentiles import Latencies, latencies, ranks

MICROSECONDS = st.lists(st.integers(1, 59_000_000), min_size=1, max_size=200)


def encoded(values: list[int]) -> str:
    histogram = HdrHistogram(1, 60_000_000, 3)
    for value in values:
        histogram.record_value(value)
    return str(histogram.encode().decode())


@given(parts=st.lists(MICROSECONDS, min_size=1, max_size=4))
def test_percentiles_over_workers_and_rounds_are_those_of_all_answers(parts: list[list[int]]) -> None:
    rounds = [
        [
            {
                "elapsed_s": 2.0,
                "operations": {
                    "get": {
                        "response": {"0": encoded(values)},
                        "service": {"0": encoded(values)},
                        "errors": {"0": 1},
                        "first_error": "x",
                    }
                },
            }
        ]
        for values in parts
    ]
    # The first two as two workers of one round, the others as rounds of their own.
    rounds = [[*rounds[0], *rounds[1]], *rounds[2:]] if len(rounds) > 1 else rounds
    found = times(rounds)["get"]
    every = [value / 1000 for values in parts for value in values]
    assert found.response.total == len(every)
    assert sum(found.errors.values()) == len(parts)
    assert len(found.response.blocks) == len(rounds)
    for percentile in (50, 95, 99):
        low, high = (np.percentile(every, percentile, method=method) for method in ("lower", "higher"))
        # Three digits; at a half rank the two rules of rounding may name neighbours.
        assert low * 0.998 - 0.001 <= found.response.at(percentile) <= high * 1.002 + 0.001


@given(values=MICROSECONDS, confidence=st.sampled_from([0.8, 0.95]))
def test_an_interval_holds_its_percentile(values: list[int], confidence: float) -> None:
    found = latencies([(0, {"0": encoded(values)})]).estimate(95, confidence)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(
    ("total", "share", "confidence", "expected"),
    [
        # Published tables of order statistics: 59 answers bound a p95 at 95 % one-sided, 299 a p99.
        (58, 0.95, 0.9, 59),
        (59, 0.95, 0.9, 59),
        (298, 0.99, 0.9, 299),
        (299, 0.99, 0.9, 299),
    ],
)
def test_too_few_answers_bound_nothing(total: int, share: float, confidence: float, expected: int) -> None:
    _, upper = ranks(total, share, confidence)
    assert (upper > total) == (expected > total)


def test_the_interval_covers_the_true_percentile_as_often_as_it_says() -> None:
    chance = np.random.default_rng(3)
    true = float(np.log(20))  # the p95 of an exponential of mean 1
    inside = 0
    for _ in range(300):
        values, counts = np.unique(np.round(chance.exponential(size=400), 6), return_counts=True)
        found = Latencies(values, counts.reshape(1, -1), (0,)).estimate(95, 0.8)
        inside += found.low <= true <= found.high
    assert inside / 300 >= 0.75


def test_answers_that_come_in_bursts_are_less_sure_than_independent_ones() -> None:
    # 20 blocks of 100: in one of ten the server is slow for all.
    values = np.array([2.0, 80.0])
    steady = np.tile([93, 7], (20, 1))
    bursts = np.array([[100, 0]] * 19 + [[0, 100]])
    at = [Latencies(values, counts, tuple(range(20))).estimate(95, 0.95) for counts in (steady, bursts)]
    assert (at[0].low, at[0].high) == (80.0, 80.0)
    assert (at[1].low, at[1].high) == (2.0, 80.0)


def test_without_answers_there_is_no_bound() -> None:
    found = latencies([]).estimate(95, 0.8)
    assert (found.value, found.high) == (0.0, math.inf)
