"""The readings of one round, and their Prometheus metrics. These functions are pure and make no request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from plinth.status_files.backup_runs import KINDS, Result, Run, State

STATUSES = ("green", "yellow", "grey", "red")
RESULTS: tuple[Result, ...] = ("ok", "incomplete", "failed")


@dataclass(frozen=True)
class CollectionReading:
    """One collection as its server describes it."""

    status: str
    optimizer_ok: bool
    indexed_vectors: int
    segments: int
    replication_factor: int
    active_replicas_min: int | None
    snapshot_at: float | None


@dataclass(frozen=True)
class Reading:
    """The readings of a round. ``state`` is None where backups are off; ``state_readable`` False for a damaged file."""

    at: float
    peers: int
    memory_limit_bytes: int
    collections: Mapping[str, CollectionReading] = field(default_factory=dict)
    recall: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    state: State | None = None
    state_readable: bool = True
    load_gates: tuple[str, ...] = ()


def described(
    info: Mapping[str, Any], cluster: Mapping[str, Any] | None, snapshot_at: float | None
) -> CollectionReading:
    """Return a reading from `GET /collections/{name}` and `GET /collections/{name}/cluster`."""
    return CollectionReading(
        status=info["status"],
        optimizer_ok=info["optimizer_status"] == "ok",
        indexed_vectors=info.get("indexed_vectors_count") or 0,
        segments=info["segments_count"],
        replication_factor=info["config"]["params"].get("replication_factor") or 1,
        active_replicas_min=active_replicas_min(cluster) if cluster else None,
        snapshot_at=snapshot_at,
    )


def active_replicas_min(cluster: Mapping[str, Any]) -> int | None:
    """Return the fewest active replicas of any shard over all peers, or None without a shard."""
    active: dict[int, int] = {}
    for shard in [*cluster["local_shards"], *cluster["remote_shards"]]:
        active[shard["shard_id"]] = active.get(shard["shard_id"], 0) + (shard["state"] == "Active")
    return min(active.values(), default=None)


def families(reading: Reading) -> Iterator[Metric]:
    """Yield the metrics of a round."""
    yield _one("plinth_exporter_last_round_timestamp_seconds", "When the last round ended.", reading.at)
    yield _one("plinth_qdrant_expected_peers", "Peers that the settings ask for.", reading.peers)
    yield _one("plinth_qdrant_memory_limit_bytes", "Memory that one Qdrant node may take.", reading.memory_limit_bytes)
    yield from _collections(reading.collections)
    gates = GaugeMetricFamily(
        "plinth_load_gate_collection", "1 for a collection of the load gate's, which no alert is about.", labels=["id"]
    )
    for name in reading.load_gates:
        gates.add_metric([name], 1)
    yield gates
    recall = GaugeMetricFamily(
        "plinth_probe_recall_ratio",
        "recall@10 on the probe set against an exact search.",
        labels=["collection", "band"],
    )
    for name, bands in reading.recall.items():
        for band, value in bands.items():
            recall.add_metric([name, band], value)
    yield recall
    if reading.state is not None:
        yield _one("plinth_backup_state_readable", "Whether the state of backups can be read.", reading.state_readable)
        if reading.state_readable:
            yield from _runs(reading.state)


def _collections(collections: Mapping[str, CollectionReading]) -> Iterator[Metric]:
    status = GaugeMetricFamily(
        "plinth_collection_status", "1 for the colour of a collection.", labels=["collection", "status"]
    )
    for name, found in collections.items():
        for colour in STATUSES:
            status.add_metric([name, colour], found.status == colour)
    yield status
    for metric, words, values in (
        (
            "optimizer_ok",
            "1 while the optimizer reports no error.",
            {n: c.optimizer_ok for n, c in collections.items()},
        ),
        ("indexed_vectors", "Vectors in an index.", {n: c.indexed_vectors for n, c in collections.items()}),
        ("segments", "Segments on this node.", {n: c.segments for n, c in collections.items()}),
        (
            "replication_factor",
            "Replicas that are asked for.",
            {n: c.replication_factor for n, c in collections.items()},
        ),
        (
            "active_replicas_min",
            "Active replicas of the shard with fewest.",
            {n: c.active_replicas_min for n, c in collections.items()},
        ),
        (
            "last_snapshot_timestamp_seconds",
            "When the newest snapshot was made that is still on the server.",
            {n: c.snapshot_at for n, c in collections.items()},
        ),
    ):
        family = GaugeMetricFamily(f"plinth_collection_{metric}", words, labels=["collection"])
        for name, value in values.items():
            if value is not None:
                family.add_metric([name], value)
        yield family


def _runs(state: State) -> Iterator[Metric]:
    for kind in KINDS:
        run: Run | None = getattr(state, kind)
        # 0 means never: an alert can fire on it, but not on a series that does not exist.
        succeeded = (run.succeeded_at if run else None) or 0.0
        yield _one(
            f"plinth_{kind}_last_success_timestamp_seconds", f"When the last good {kind} ended; 0: never.", succeeded
        )
        if run is None:
            continue
        yield _one(f"plinth_{kind}_last_attempt_timestamp_seconds", f"When the last {kind} began.", run.attempted_at)
        yield _one(f"plinth_{kind}_last_duration_seconds", f"How long the last {kind} took.", run.duration_s)
        if run.size_bytes is not None:
            yield _one(f"plinth_{kind}_last_size_bytes", f"What the last {kind} handled.", run.size_bytes)
        result = GaugeMetricFamily(f"plinth_{kind}_last_result", f"1 for the last {kind}'s result.", labels=["result"])
        for word in RESULTS:
            result.add_metric([word], run.result == word)
        yield result
        stores = GaugeMetricFamily(f"plinth_{kind}_store_ok", f"1 for a store in the last {kind}.", labels=["store"])
        for store, word in run.stores.items():
            stores.add_metric([store], word == "ok")
        yield stores


def state_of(page: str) -> State:
    """Parse the state from a page of :func:`_runs`, without the details of a run, which the page does not have."""
    values: dict[str, float] = {}
    chosen: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if len(sample.labels) == 1:
                (label,) = sample.labels.values()
                chosen.setdefault(sample.name, {})[label] = sample.value
            elif not sample.labels:
                values[sample.name] = sample.value
    runs: dict[str, Run] = {}
    for kind in KINDS:
        if f"plinth_{kind}_last_attempt_timestamp_seconds" not in values:
            continue
        size = values.get(f"plinth_{kind}_last_size_bytes")
        results = chosen.get(f"plinth_{kind}_last_result", {})
        stores = chosen.get(f"plinth_{kind}_store_ok", {})
        runs[kind] = Run(
            attempted_at=values[f"plinth_{kind}_last_attempt_timestamp_seconds"],
            succeeded_at=values.get(f"plinth_{kind}_last_success_timestamp_seconds") or None,
            result=next((result for result in RESULTS if results.get(result)), "failed"),
            duration_s=values.get(f"plinth_{kind}_last_duration_seconds", 0.0),
            size_bytes=None if size is None else int(size),
            stores={store: "ok" if value else "failed" for store, value in stores.items()},
        )
    return State(**runs)


def _one(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=float(value))
