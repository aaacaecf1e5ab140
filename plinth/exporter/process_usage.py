"""The resource usage of each service on this machine, by the port it listens on, for every target (S0-05).

A service on another machine, or behind a container's network, has no figures here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric


@dataclass(frozen=True)
class Use:
    """CPU seconds since the start, and bytes of memory and disk traffic, of a service's whole process tree."""

    cpu_s: float
    resident: int
    read: int
    written: int


def uses(ports: Mapping[str, int]) -> dict[str, Use]:
    """Return the usage by service, without services that do not run here or belong to another user."""
    try:
        sockets = psutil.net_connections("tcp")
    except psutil.Error:
        return {}
    listening = {found.laddr.port: found.pid for found in sockets if found.laddr and found.status == psutil.CONN_LISTEN}
    found = {name: _use(listening[port]) for name, port in ports.items() if listening.get(port)}
    return {name: use for name, use in found.items() if use}


def sizes(volumes: Mapping[str, Sequence[Path]]) -> dict[str, int]:
    """Return the bytes on disk by service, of the volumes that this process can read."""
    seen = {name: [path for path in paths if path.is_dir()] for name, paths in volumes.items()}
    return {name: sum(map(_size, paths)) for name, paths in seen.items() if paths}


def families(found: Mapping[str, Use], on_disk: Mapping[str, int]) -> Iterator[Metric]:
    """Yield the metrics, labelled by service and node; a process is its service's only node."""
    for name, words, values in (
        ("cpu_seconds", "Processor time.", {n: use.cpu_s for n, use in found.items()}),
        ("read_bytes", "Read from disk.", {n: use.read for n, use in found.items()}),
        ("written_bytes", "Written to disk.", {n: use.written for n, use in found.items()}),
    ):
        counter = CounterMetricFamily(f"plinth_service_{name}", words, labels=["service", "node"])
        for service, value in values.items():
            counter.add_metric([service, service], value)
        yield counter
    for name, words, values in (
        ("resident_bytes", "Resident memory.", {n: use.resident for n, use in found.items()}),
        ("disk_bytes", "Data on disk.", dict(on_disk)),
    ):
        gauge = GaugeMetricFamily(f"plinth_service_{name}", words, labels=["service", "node"])
        for service, value in values.items():
            gauge.add_metric([service, service], value)
        yield gauge


def _use(pid: int | None) -> Use | None:
    try:
        leader = psutil.Process(pid)
        tree = [leader, *leader.children(recursive=True)]
        times = [process.cpu_times() for process in tree]
        # The usage of ended children is counted with their parent, so the sums never decrease.
        ended = times[0].children_user + times[0].children_system
        traffic = [process.io_counters() for process in tree]
        return Use(
            sum(spent.user + spent.system for spent in times) + ended,
            sum(process.memory_info().rss for process in tree),
            sum(io.read_bytes for io in traffic),
            sum(io.write_bytes for io in traffic),
        )
    except psutil.Error:
        return None


def _size(directory: Path) -> int:
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(f"{parent}/{name}").st_blocks * 512
            except OSError:
                continue  # gone between the listing and the reading
    return total
