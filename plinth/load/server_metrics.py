"""The server's side of a run: its own latency histogram, and its CPU and memory where they can be read."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import psutil
from prometheus_client.parser import text_string_to_metric_families

from plinth.qdrant.client import Qdrant, QdrantError

EVERY_S = 2.0
SEARCHES = {
    "rest_responses_duration_seconds": "/collections/{collection_name}/points/query",
    "grpc_responses_duration_seconds": "/qdrant.Points/Query",
}
Buckets = Mapping[float, float]


@dataclass(frozen=True)
class Sample:
    """The server at a moment of the run: cores used since the sample before, and resident memory in MiB."""

    at_s: float
    cpu_cores: float
    rss_mib: float


@dataclass(frozen=True)
class ServerSide:
    """The server's own figures of the run. ``samples`` is empty where its processes run elsewhere."""

    searches: int
    search_p95_ms: tuple[float, float] | None
    samples: tuple[Sample, ...] = ()
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)


class Observer:
    """Observes a server from entry to exit of a `with`; ``seen`` has the result afterwards."""

    seen: ServerSide

    def __init__(self, client: Qdrant, collection: str) -> None:
        self._client = client
        self._collection = collection
        self._processes = list(serving(client.url))
        self._samples: list[Sample] = []
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._buckets = self._search_buckets()
        self._before = self._state()
        self._began = time.monotonic()
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self._watcher.join()
        if kind:
            return
        answered = difference(self._search_buckets(), self._buckets)
        self.seen = ServerSide(
            searches=int(answered.get(float("inf"), 0)),
            search_p95_ms=bracket(answered, 0.95),
            samples=tuple(self._samples),
            before=self._before,
            after=self._state_left(),
        )

    def _watch(self) -> None:
        used, at = cpu_seconds(self._processes), time.monotonic()
        while not self._ended.wait(EVERY_S):
            now, now_used = time.monotonic(), cpu_seconds(self._processes)
            if self._processes:
                cores = max(0.0, now_used - used) / (now - at)
                self._samples.append(Sample(now - self._began, cores, _rss_mib(self._processes)))
            used, at = now_used, now

    def _search_buckets(self) -> Buckets:
        try:
            return search_buckets(self._client.metrics())
        except QdrantError:
            return {}

    def _state_left(self) -> dict[str, float]:
        """Return the state, or nothing where the server is gone."""
        try:
            return self._state()
        except QdrantError:
            return {}

    def _state(self) -> dict[str, float]:
        info = self._client.collection(self._collection) or {}
        named = ("points_count", "indexed_vectors_count", "segments_count")
        return {name: float(info.get(name) or 0) for name in named}


def search_buckets(page: str) -> Buckets:
    """Return the searches answered within so many seconds, from a page of `/metrics`, over REST and gRPC together."""
    found: dict[float, float] = {}
    for family in text_string_to_metric_families(page):
        endpoint = SEARCHES.get(family.name)
        for sample in family.samples:
            if endpoint and sample.labels.get("endpoint") == endpoint and sample.name.endswith("_bucket"):
                edge = float(sample.labels["le"])
                found[edge] = found.get(edge, 0.0) + sample.value
    return found


def difference(after: Buckets, before: Buckets) -> Buckets:
    """Return the counts between two pages; those of a server that restarted in between start from zero."""
    anew = any(value < before.get(edge, 0.0) for edge, value in after.items())
    return {edge: value - (0.0 if anew else before.get(edge, 0.0)) for edge, value in after.items()}


def bracket(buckets: Buckets, share: float) -> tuple[float, float] | None:
    """Return the edges in milliseconds between which a quantile lies; None without searches."""
    edges = sorted(buckets)
    if not edges or not buckets[edges[-1]]:
        return None
    below = 0.0
    for edge in edges:
        if buckets[edge] >= share * buckets[edges[-1]]:
            return below * 1000, edge * 1000
        below = edge
    return None


def serving(url: str) -> Iterator[psutil.Process]:
    """Yield the processes of this machine behind an address: the listening one and its children."""
    port = urlsplit(url).port
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                process = psutil.Process(connection.pid)
                yield process
                yield from process.children(recursive=True)


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return the CPU seconds that processes have used so far."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:2])
    return total


def _rss_mib(processes: Iterable[psutil.Process]) -> float:
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 2**20
