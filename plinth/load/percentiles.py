"""Percentiles with their confidence intervals; pure.

A percentile of a few hundred answers is a guess. Two intervals are computed, and the wider one counts: by order
statistics, which is exact for any number of independent answers, and by a block bootstrap, since answers close in time
resemble each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil, inf, log

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

RESAMPLES = 400
BLOCKS_MIN = 8


@dataclass(frozen=True)
class Estimate:
    """A percentile and its interval, in milliseconds; ``high`` is infinite where the answers are too few."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Latencies:
    """Counts of latencies: ``counts`` is (blocks, values), ``values`` are in milliseconds, ascending."""

    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    blocks: tuple[int, ...]

    @property
    def total(self) -> int:
        """Return the number of answers."""
        return int(self.counts.sum())

    def mean(self) -> float:
        """Return the mean in milliseconds."""
        return float(self.counts.sum(axis=0) @ self.values / self.total) if self.total else 0.0

    def at(self, percentile: float) -> float:
        """Return the smallest latency that so many percent of the answers do not exceed; 0 without answers."""
        return _at(self.values, self.counts.sum(axis=0), percentile) if self.total else 0.0

    def estimate(self, percentile: float, confidence: float) -> Estimate:
        """Return the percentile with its interval."""
        if not self.total:
            return Estimate(0.0, 0.0, inf)
        low, high = self._by_rank(percentile, confidence)
        if len(self.counts) >= BLOCKS_MIN:
            resampled = self._by_blocks(percentile, confidence)
            low, high = min(low, resampled[0]), max(high, resampled[1])
        return Estimate(self.at(percentile), low, high)

    def over_time(self, percentile: float) -> dict[int, float]:
        """Return the percentile of each block."""
        return {
            block: _at(self.values, row, percentile)
            for block, row in zip(self.blocks, self.counts, strict=True)
            if row.any()
        }

    def _by_rank(self, percentile: float, confidence: float) -> tuple[float, float]:
        below, above = ranks(self.total, percentile / 100, confidence)
        ordered = np.cumsum(self.counts.sum(axis=0))
        low = float(self.values[np.searchsorted(ordered, below)]) if below else 0.0
        high = float(self.values[np.searchsorted(ordered, above)]) if above <= self.total else inf
        return low, high

    def resampled(self, percentile: float, seed: int = 0) -> npt.NDArray[np.float64]:
        """Return the percentile over many bootstrap samples of the blocks."""
        blocks = len(self.counts)
        draws = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), RESAMPLES)
        return np.array([_at(self.values, row, percentile) for row in draws @ self.counts])

    def _by_blocks(self, percentile: float, confidence: float) -> tuple[float, float]:
        low, high = np.quantile(self.resampled(percentile), [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)


def ranks(total: int, share: float, confidence: float) -> tuple[int, int]:
    """Return the ranks (from 1) between which the quantile lies, by the binomial distribution.

    The lower one is 0 and the upper one ``total`` + 1 where the answers are too few to bound it.
    """
    tail = (1 - confidence) / 2
    k = np.arange(total + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    logs = factorials[-1] - factorials - factorials[::-1]
    cumulative = np.cumsum(np.exp(logs + k * log(share) + (total - k) * log(1 - share)))
    lower = int(np.searchsorted(cumulative, tail, side="right"))
    upper = int(np.searchsorted(cumulative, 1 - tail)) + 1
    return lower, min(upper, total + 1)


def latencies(parts: Iterable[tuple[int, Mapping[str, str]]]) -> Latencies:
    """Decode histograms by block.

    Each part comes with the number of its first block: the workers of one round share theirs.
    """
    rows: dict[int, dict[int, int]] = {}
    for first, blocks in parts:
        for block, text in blocks.items():
            row = rows.setdefault(first + int(block), {})
            for value, count in _recorded(HdrHistogram.decode(text)):
                row[value] = row.get(value, 0) + count
    values = sorted({value for row in rows.values() for value in row})
    counts = np.array([[rows[block].get(value, 0) for value in values] for block in sorted(rows)], dtype=np.int64)
    return Latencies(
        np.array(values, dtype=np.float64) / 1000, counts.reshape(len(rows), len(values)), tuple(sorted(rows))
    )


def _recorded(histogram: HdrHistogram) -> Iterator[tuple[int, int]]:
    """Yield the values that occur; the histogram's own iterator visits each of 17,000 buckets in Python."""
    counts = np.frombuffer(histogram.counts, dtype=f"u{histogram.word_size}")
    for index in np.flatnonzero(counts):
        value = histogram.get_value_from_index(int(index))
        yield histogram.get_highest_equivalent_value(value), int(counts[index])


def _at(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], percentile: float) -> float:
    cumulative = np.cumsum(counts)
    rank = max(1, ceil(percentile / 100 * cumulative[-1]))
    return float(values[np.searchsorted(cumulative, rank)])
