"""`/metrics` in Prometheus' text format, with Qdrant's own names (v1.18)."""

from __future__ import annotations

import resource
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plinth.embedded import VERSION

BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 10, 50)
_Sample = tuple[Mapping[str, Any], float]


class Requests:
    """Counts and durations of REST requests, by method, route and status; durations of status 200 alone."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, int], int] = {}
        self._buckets: dict[tuple[str, str, int], list[int]] = {}
        self._sums: dict[tuple[str, str, int], float] = {}

    def record(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        """Take one answered request."""
        key = (method, endpoint, status)
        self._counts[key] = self._counts.get(key, 0) + 1
        if status == 200:
            counts = self._buckets.setdefault(key, [0] * (len(BUCKETS) + 1))
            counts[bisect_left(BUCKETS, seconds)] += 1
            self._sums[key] = self._sums.get(key, 0.0) + seconds

    def lines(self) -> Iterable[str]:
        """The families of REST requests."""
        yield from _family(
            "rest_responses_total", "counter", [(_labels(key), count) for key, count in self._counts.items()]
        )
        if not self._buckets:
            return
        name = "rest_responses_duration_seconds"
        yield f"# TYPE {name} histogram"
        for key, counts in self._buckets.items():
            below = 0
            for edge, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
                below += count
                yield f"{name}_bucket{_braces({**_labels(key), 'le': edge})} {below}"
            yield f"{name}_sum{_braces(_labels(key))} {self._sums[key]}"
            yield f"{name}_count{_braces(_labels(key))} {below}"


def page(requests: Requests, collections: Mapping[str, Mapping[str, Any]], snapshots: Mapping[str, int]) -> str:
    """The whole page. ``collections`` is each one's info with `queued`; ``snapshots`` counts those created."""
    total = sum(info["points_count"] for info in collections.values())
    lines: list[str] = []
    lines += _family("app_info", "gauge", [({"name": "plinth-embedded", "version": VERSION}, 1)])
    lines += _family("app_status_recovery_mode", "gauge", [({}, 0)])
    lines += _family("cluster_enabled", "gauge", [({}, 0)])
    lines += _family("collections_total", "gauge", [({}, len(collections))])
    lines += _family("collections_vector_total", "gauge", [({}, total)])
    for name, key in (
        ("collection_points", "points_count"),
        ("collection_running_optimizations", "running"),
        ("collection_update_queue_length", "queued"),
    ):
        lines += _family(name, "gauge", [({"id": c}, info[key]) for c, info in collections.items()])
    lines += _family("snapshot_created_total", "counter", [({"id": c}, count) for c, count in snapshots.items()])
    lines += requests.lines()
    lines += _process()
    return "\n".join(lines) + "\n"


def _process() -> list[str]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    gauges = {
        "process_threads": threading.active_count(),
        "process_open_fds": len(list(Path("/proc/self/fd").iterdir())),
        "process_max_fds": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "process_open_mmaps": len(Path("/proc/self/maps").read_text().splitlines()),
        "system_max_mmaps": int(Path("/proc/sys/vm/max_map_count").read_text()),
    }
    lines = [line for name, value in gauges.items() for line in _family(name, "gauge", [({}, value)])]
    lines += _family("process_minor_page_faults_total", "counter", [({}, usage.ru_minflt + children.ru_minflt)])
    lines += _family("process_major_page_faults_total", "counter", [({}, usage.ru_majflt + children.ru_majflt)])
    return lines


def _family(name: str, kind: str, samples: list[_Sample]) -> list[str]:
    """A family; one without samples is left out, as Qdrant does."""
    if not samples:
        return []
    return [f"# TYPE {name} {kind}", *(f"{name}{_braces(labels)} {value}" for labels, value in samples)]


def _labels(key: tuple[str, str, int]) -> dict[str, Any]:
    return dict(zip(("method", "endpoint", "status"), key, strict=True))


def _braces(labels: Mapping[str, Any]) -> str:
    escaped = (f'{key}="{_escape(str(value))}"' for key, value in labels.items())
    return f"{{{','.join(escaped)}}}" if labels else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
