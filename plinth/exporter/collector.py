"""The rounds of the exporter: query Qdrant, search as applications do, and read what backups wrote."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from plinth.exporter import cgroup_usage, process_usage
from plinth.exporter.config import Config
from plinth.exporter.metrics import CollectionReading, Reading, described, families
from plinth.exporter.probe_queries import Question, body, choose, nobody, recall
from plinth.exporter.usage_server import Figures, Machine
from plinth.qdrant.client import Qdrant, QdrantError, collection_path
from plinth.qdrant.load_mark import is_load_gates, metadata_of
from plinth.qdrant.metric_names import EDGES
from plinth.qdrant.spec import CollectionSpec
from plinth.status_files import events
from plinth.status_files.backup_runs import State, StateUnreadable, read
from plinth.system.http_client import is_path_part
from plinth.system.secret_file import read_secret

log = logging.getLogger("plinth.exporter")

# Each collection is a dozen series. A program that creates collections without end must not overload Prometheus.
MOST_COLLECTIONS = 200
CHOOSE_AGAIN_SEC = 3600.0


class Watch(Collector):
    """The last round, and the probe queries of the next one. Rounds and scrapes may run in different threads."""

    def __init__(
        self, config: Config, client: Qdrant, registry: CollectorRegistry, figures: Figures | None = None
    ) -> None:
        self._config = config
        self._figures = figures or Machine(config.services, config.volumes)
        self._client = client
        self._reading: Reading | None = None
        self._questions: dict[str, list[Question]] = {spec.name: [] for spec in config.collections}
        self._chosen_at: dict[str, float] = {}
        self._recall: dict[str, dict[str, float]] = {}
        self._recalled_at: dict[str, float] = {}
        self._sizes: dict[str, int] = {}
        self._sized_at: dict[str, float] = {}
        self._rounds = 0
        names = ["collection"]
        self._seconds = Histogram(
            "plinth_probe_search_duration_seconds",
            "Test searches, from sending to the answer, in Qdrant's own buckets.",
            names,
            buckets=EDGES,
            registry=registry,
        )
        self._searches = Counter("plinth_probe_searches", "Test searches.", [*names, "result"], registry=registry)
        for spec in config.collections:
            for result in ("ok", "error"):
                self._searches.labels(spec.name, result)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the last round, or nothing before the first one has ended."""
        if self._reading:
            yield from families(self._reading)
            yield from self._used()
            if self._config.marks:
                yield from events.families(events.read(self._config.marks))

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: the metrics depend on the server."""
        yield from ()

    def round(self) -> Reading:
        """Read everything once. A failed reading is logged and left out; an old one is never repeated."""
        for spec in self._config.collections:
            self._probe(spec)
        watched = self._config.qdrant
        state, readable = self._state()
        collections, load_gates = self._collections()
        self._reading = Reading(
            at=time.time(),
            peers=watched.peers,
            memory_limit_bytes=watched.memory_limit_bytes,
            collections=collections,
            load_gates=load_gates,
            recall={name: dict(bands) for name, bands in self._recall.items()},
            state=state,
            state_readable=readable,
        )
        if self._is_due(self._sized_at, "all", self._config.pace.size_sec):
            self._sizes = self._figures.sizes()
        counted = self._config.cgroups
        if counted and not cgroup_usage.uses(counted):
            log.warning("no container of this stack is found in %s", counted.directory)
        self._rounds += 1
        return self._reading

    def _used(self) -> Iterator[Metric]:
        if self._config.cgroups:
            return cgroup_usage.families(cgroup_usage.uses(self._config.cgroups))
        return process_usage.families(self._figures.uses(), self._sizes)

    def _collections(self) -> tuple[dict[str, CollectionReading], tuple[str, ...]]:
        """Return the readings of the users' collections, and the names of the load gate's."""
        try:
            names = self._client.collections()[:MOST_COLLECTIONS]
            if strange := [name for name in names if not is_path_part(name)]:
                log.warning("collections with these names are not watched: %s", ", ".join(strange))
            infos = {name: self._client.collection(name) for name in names if is_path_part(name)}
            load_gates = tuple(name for name, info in infos.items() if is_load_gates(name, metadata_of(info)))
            found = {
                name: self._reading_of(name, info)
                for name, info in infos.items()
                if info is not None and name not in load_gates
            }
        except QdrantError as error:
            log.warning("collections are not watched: %s", error)
            return {}, ()
        return found, load_gates

    def _reading_of(self, name: str, info: Mapping[str, Any]) -> CollectionReading:
        path = collection_path(name)
        return described(
            info, self._unless_refused(f"{path}/cluster"), _newest(self._unless_refused(f"{path}/snapshots"))
        )

    def _unless_refused(self, path: str) -> Any:
        """Return the answer at a path that only some servers or keys support, or None."""
        try:
            return self._client.call("GET", path)
        except QdrantError as error:
            log.debug("%s", error)
            return None

    def _probe(self, spec: CollectionSpec) -> None:
        try:
            question = self._next_question(spec)
            began = time.perf_counter()
            self._search(spec, question)
            self._seconds.labels(spec.name).observe(time.perf_counter() - began)
        except QdrantError as error:
            self._searches.labels(spec.name, "error").inc()
            self._chosen_at.pop(spec.name, None)
            log.warning("test search of %s: %s", spec.name, error)
            return
        self._searches.labels(spec.name, "ok").inc()
        if self._is_due(self._recalled_at, spec.name, self._config.pace.recall_sec):
            self._measure_recall(spec)

    def _next_question(self, spec: CollectionSpec) -> Question:
        # An empty collection may be filled at any time; its recall is measured from then on.
        if self._is_due(self._chosen_at, spec.name, CHOOSE_AGAIN_SEC) or not self._questions[spec.name]:
            self._questions[spec.name] = choose(self._client, spec)
        asked = self._questions[spec.name] or [nobody(spec)]
        return asked[self._rounds % len(asked)]

    def _measure_recall(self, spec: CollectionSpec) -> None:
        shares = []
        try:
            for question in self._questions[spec.name]:
                wanted = self._search(spec, question, exact=True)
                if wanted:
                    shares.append((question, len(wanted & self._search(spec, question)) / len(wanted)))
        except QdrantError as error:
            log.warning("recall of %s: %s", spec.name, error)
            self._recall.pop(spec.name, None)
            return
        self._recall[spec.name] = recall(shares)
        if not shares:
            self._recalled_at.pop(spec.name, None)

    def _search(self, spec: CollectionSpec, question: Question, *, exact: bool = False) -> set[Any]:
        path = f"{collection_path(spec.name)}/points/query"
        return {point["id"] for point in self._client.call("POST", path, body(spec, question, exact=exact))["points"]}

    def _state(self) -> tuple[State | None, bool]:
        if self._config.backup_state is None:
            return None, True
        try:
            return read(self._config.backup_state), True
        except StateUnreadable as error:
            log.warning("%s", error)
            return State(), False

    def _is_due(self, times: dict[str, float], name: str, every_sec: float) -> bool:
        now = time.monotonic()
        if now - times.get(name, -every_sec) < every_sec:
            return False
        times[name] = now
        return True


def client(config: Config) -> Qdrant:
    """Return a connection with the read-only key."""
    key, ca = (read_secret(file) if file else None for file in (config.qdrant.api_key_file, config.qdrant.ca_file))
    return Qdrant(config.qdrant.url, key, timeout_s=5, ca_cert=ca)


def _newest(snapshots: Any) -> float | None:
    times = [snapshot["creation_time"] for snapshot in snapshots or () if snapshot.get("creation_time")]
    return max((datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp() for time in times), default=None)
