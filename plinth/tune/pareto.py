"""The measured settings, those worth having among them, and the lines for the collection's file; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from plinth.qdrant.spec import CollectionSpec
from plinth.tune.recall_bands import certain
from plinth.tune.search_space import Build, Search

# A smaller difference is the machine's noise, or is lost in the millisecond that a request takes anyway.
SAME_MS = 0.1
SAME_SHARE = 1.1


@dataclass(frozen=True)
class Outcome:
    """The result of one way to search a built graph: each query's recall by band, and its engine time in ms."""

    recalls: Mapping[str, Sequence[float]]
    engine_ms: tuple[float, ...]

    def certain(self) -> dict[str, float]:
        """Return the lower bound of each band's recall, with a confidence of 95 percent."""
        return {band: certain(scores) for band, scores in self.recalls.items()}


@dataclass(frozen=True)
class Point:
    """A graph and a way to search it, over all builds of the graph.

    ``recall`` is each band's mean in the worst build, ``at_least`` the lower bound of it. ``memory`` is the bytes that
    must stay in memory for a million vectors, by ``plinth size``.
    """

    build: Build
    search: Search
    builds: int
    recall: dict[str, float]
    at_least: dict[str, float]
    p50_ms: float
    p95_ms: float
    memory: float

    @property
    def worst(self) -> float:
        """The recall of the band with the lowest one."""
        return min(self.recall.values())

    def meets(self, floor: float) -> bool:
        """Whether every band reaches the floor in every build, with confidence."""
        return min(self.at_least.values()) >= floor

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "build": self.build.__dict__,
            "search": {
                "hnsw_ef": self.search.ef,
                "rescore": self.search.rescore,
                "oversampling": self.search.oversampling,
            },
            "builds": self.builds,
            "recall_at_10": self.recall,
            "recall_at_least": self.at_least,
            "engine_p50_ms": self.p50_ms,
            "engine_p95_ms": self.p95_ms,
            "memory_bytes_per_million": round(self.memory),
        }


def point(build: Build, search: Search, outcomes: Sequence[Outcome], memory: float) -> Point:
    """Combine all builds of one graph into a point, with the worst build of each band."""
    bands = outcomes[0].recalls.keys()
    each = [outcome.certain() for outcome in outcomes]
    times = sorted(ms for outcome in outcomes for ms in outcome.engine_ms)
    return Point(
        build=build,
        search=search,
        builds=len(outcomes),
        recall={band: min(sum(o.recalls[band]) / len(o.recalls[band]) for o in outcomes) for band in bands},
        at_least={band: min(found[band] for found in each) for band in bands},
        p50_ms=times[len(times) // 2],
        p95_ms=times[min(len(times) - 1, int(len(times) * 0.95))],
        memory=memory,
    )


def pareto(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other beats or equals in recall, latency and memory at once; the fastest first."""
    found: list[Point] = []
    for candidate in sorted(points, key=lambda p: (p.p50_ms, -p.worst, p.memory)):
        if not any(_covers(other, candidate) for other in found):
            found.append(candidate)
    return found


def choose(points: Iterable[Point], floor: float) -> Point | None:
    """Choose the fastest point that meets the floor; among about equally fast ones the smallest, then the surest."""
    good = [candidate for candidate in points if candidate.meets(floor)]
    if not good:
        return None
    quickest = min(candidate.p50_ms for candidate in good)
    quick = [candidate for candidate in good if candidate.p50_ms <= max(quickest * SAME_SHARE, quickest + SAME_MS)]
    smallest = min(candidate.memory for candidate in quick)
    small = [candidate for candidate in quick if candidate.memory <= smallest * SAME_SHARE]
    return min(small, key=lambda p: (-round(p.worst, 3), p.memory, p.p50_ms))


def settings_lines(spec: CollectionSpec, chosen: Point, quantization: Mapping[str, Any] | None) -> str:
    """Return the YAML of the chosen point, which replaces the same keys of the collection's file."""
    graph = spec.hnsw_config.model_dump(exclude_none=True) | {
        "m": chosen.build.m,
        "payload_m": chosen.build.payload_m,
        "ef_construct": chosen.build.ef_construct,
    }
    search = spec.search.model_dump(exclude_none=True) | {"hnsw_ef": chosen.search.ef}
    if quantization:
        search |= {"rescore": chosen.search.rescore, "oversampling": max(1.0, chosen.search.oversampling)}
    lines: dict[str, Any] = {"hnsw_config": graph, "quantization_config": quantization, "search": search}
    return yaml.safe_dump({key: value for key, value in lines.items() if value}, sort_keys=False)


def _covers(other: Point, candidate: Point) -> bool:
    return other.worst >= candidate.worst and other.p50_ms <= candidate.p50_ms and other.memory <= candidate.memory
