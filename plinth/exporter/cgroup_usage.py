"""The resource usage of each container, read from the kernel without the container engine (S0-05).

The target puts a cgroup above every container and names it after its service and node. Its only child is the
container's own cgroup, whatever the engine calls it. Version 1 does not count all disk writes: writeback is counted for
no container, and newer kernels count no writes. The formulas follow the kernel's admin-guide, cgroup-v2 and cgroup-v1.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from plinth.exporter.config import Cgroups, Container


@dataclass(frozen=True)
class Sum:
    """Numbers named `FILE` or `FILE KEY` that are added and subtracted, with a factor to the unit of the metric."""

    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()
    unit: float = 1.0


VERSION_2 = {
    "cpu_seconds": Sum(("cpu.stat usage_usec",), unit=1e-6),
    "cpu_throttled_seconds": Sum(("cpu.stat throttled_usec",), unit=1e-6),
    "cpu_throttled_periods": Sum(("cpu.stat nr_throttled",)),
    "read_bytes": Sum(("io.stat rbytes",)),
    "written_bytes": Sum(("io.stat wbytes",)),
    "working_set_bytes": Sum(("memory.current",), ("memory.stat inactive_file",)),
    "unreclaimable_bytes": Sum(("memory.stat anon", "memory.stat shmem")),
    "memory_limit_bytes": Sum(("memory.max",)),
}
VERSION_1 = {
    "cpu_seconds": Sum(("cpuacct.usage",), unit=1e-9),
    "cpu_throttled_seconds": Sum(("cpu.stat throttled_time",), unit=1e-9),
    "cpu_throttled_periods": Sum(("cpu.stat nr_throttled",)),
    "working_set_bytes": Sum(("memory.usage_in_bytes",), ("memory.stat total_inactive_file",)),
    "unreclaimable_bytes": Sum(("memory.stat total_rss", "memory.stat total_shmem")),
    "memory_limit_bytes": Sum(("memory.limit_in_bytes",)),
}
# The root of each hierarchy: version 2 has only one.
HIERARCHIES_2 = {"": ("cpu.stat", "io.stat", "memory.current", "memory.stat", "memory.max")}
HIERARCHIES_1 = {
    "cpuacct": ("cpuacct.usage",),
    "cpu": ("cpu.stat",),
    "memory": ("memory.usage_in_bytes", "memory.stat", "memory.limit_in_bytes"),
}
# Version 1 writes "no limit" as the largest number of whole pages.
UNLIMITED = 2**62
COUNTERS = {
    "cpu_seconds": "Processor time.",
    "cpu_throttled_seconds": "Time that threads waited because their container's share of the processors was used up.",
    "cpu_throttled_periods": "Periods, of 100 ms, in which the share was used up.",
    "read_bytes": "Read from disk.",
    "written_bytes": "Written to disk.",
}
GAUGES = {
    "working_set_bytes": "Memory, without files that were not read for long.",
    "unreclaimable_bytes": "Anonymous and shared memory: what the kernel cannot take back.",
    "memory_limit_bytes": "Memory at which the kernel ends the container.",
}


def uses(wanted: Cgroups) -> dict[Container, dict[str, float]]:
    """Return the figures of every running container, without those that the kernel does not count."""
    is_version_2 = (wanted.directory / "cgroup.controllers").exists()
    hierarchies, sums = (HIERARCHIES_2, VERSION_2) if is_version_2 else (HIERARCHIES_1, VERSION_1)
    texts: dict[str, dict[str, str]] = {}
    for hierarchy, files in hierarchies.items():
        for above, path in _below(wanted.directory / hierarchy, wanted.above):
            texts.setdefault(above, {}).update(_texts(path, files))
    return {wanted.above[above]: figures(numbers(found), sums) for above, found in texts.items()}


def numbers(texts: Mapping[str, str]) -> dict[str, int]:
    """Return every number of some files by `FILE` or `FILE KEY`; the numbers of several devices are added up."""
    found: dict[str, int] = {}
    for file, text in texts.items():
        for key, value in (pair for line in text.splitlines() for pair in _pairs(line.split())):
            if value.isdecimal():
                name = f"{file} {key}".rstrip()
                found[name] = found.get(name, 0) + int(value)
    return found


def figures(known: Mapping[str, int], sums: Mapping[str, Sum]) -> dict[str, float]:
    """Return the metrics of which every number is known.

    A result is never negative: files are read one after the other, so a difference could be.
    """
    found = {
        metric: max(0, sum(known[name] for name in wanted.plus) - sum(known[name] for name in wanted.minus))
        * wanted.unit
        for metric, wanted in sums.items()
        if known.keys() >= {*wanted.plus, *wanted.minus}
    }
    return {metric: value for metric, value in found.items() if value < UNLIMITED}


def families(found: Mapping[Container, Mapping[str, float]]) -> Iterator[Metric]:
    """Yield the metrics, labelled by service and node."""
    for words, family in ((COUNTERS, CounterMetricFamily), (GAUGES, GaugeMetricFamily)):
        for metric, about in words.items():
            made = family(f"plinth_service_{metric}", about, labels=["service", "node"])
            for container, taken in found.items():
                if metric in taken:
                    made.add_metric([container.service, container.node], taken[metric])
            yield made


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    """Parse the lines `12`, `KEY 12` and `DEVICE KEY=12 KEY=12`."""
    if len(words) > 1 and "=" in words[1]:
        return [(key, value) for key, _, value in (word.partition("=") for word in words[1:])]
    return [(" ".join(words[:-1]), words[-1])] if words else []


def _below(hierarchy: Path, above: Collection[str]) -> Iterator[tuple[str, Path]]:
    """Yield each of these cgroups that exists in a hierarchy, with the one below it."""
    for parent, children, _ in os.walk(hierarchy):
        name = Path(parent).name
        if name in above:
            # A restarted container has a new cgroup; one that the engine did not remove is older.
            paths = [Path(parent, child) for child in children]
            yield from ((name, path) for path in sorted(paths, key=_born)[-1:])
            children.clear()


def _born(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0  # removed since it was listed


def _texts(directory: Path, files: Collection[str]) -> Iterator[tuple[str, str]]:
    for file in files:
        try:
            yield file, (directory / file).read_text()
        except OSError:
            continue  # removed since it was listed, or not counted on this machine
