"""The collection of a run: the shipped tuning, the points of the data set, and whether its index is ready."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from plinth.load.aggregation import recall_of
from plinth.load.batch_insert import insert
from plinth.load.dataset import TOP, Dataset
from plinth.load.dataset_points import BY_ROW, Stored
from plinth.load.protocols.rest import within
from plinth.load.verdict import Recall
from plinth.load.workload import SCRATCH
from plinth.qdrant.apply import converge
from plinth.qdrant.client import Qdrant, QdrantError, collection_path
from plinth.qdrant.load_mark import PREFIX
from plinth.qdrant.payload_index import PayloadIndex
from plinth.qdrant.plan import plan_collection
from plinth.qdrant.server_state import read_collection
from plinth.qdrant.spec import CollectionSpec

INDEX_DEADLINE_S = 1800.0
WORD_EVERY_S = 60.0
INDEXED_SHARE = 0.9
# Qdrant's least effective threshold in KB; a tenant above it (66 vectors of 384) is searched through its graph.
FULL_SCAN_KB = 100
# A data set of this size in KB is searched through graphs at the shipped thresholds.
LARGE_SET_KB = 100_000
# Qdrant's own default. It is set explicitly, since an omitted threshold would stay at the one for loading.
INDEXING_KB = 10_000
# Qdrant keeps at most 8 segments by default; one more accepts writes, and one may be under construction.
SEGMENTS_MAX = 10


def gate_spec(shipped: CollectionSpec, dataset: Dataset) -> CollectionSpec:
    """Return the shipped tuning of `embeddings` under a name of the gate, with the dimension of the data."""
    changes: dict[str, Any] = {
        "name": f"{PREFIX}{dataset.name.rpartition('-')[2]}",
        "aliases": (),
        "description": "load gate",
        "vectors": shipped.vectors.model_copy(update={"size": dataset.vectors.shape[1]}),
        "payload_indexes": {**shipped.payload_indexes, "word": PayloadIndex(type="text", enable_hnsw=False)},
    }
    return shipped.model_copy(update=changes)


def fitted(spec: CollectionSpec, dataset: Dataset, shards: int) -> CollectionSpec:
    """Return the spec with thresholds that the data reaches in each of the collection's ``shards``.

    A set that a laptop embeds in half a minute is below Qdrant's thresholds: it would be scanned, which is exact and
    fast, so that a broken graph would pass. The thresholds of a small set therefore shrink with it, and all of it is
    indexed, in one segment per shard whatever the number of cores.
    """
    indexing: dict[str, Any] = {"indexing_threshold": spec.optimizers_config.indexing_threshold or INDEXING_KB}
    hnsw = spec.hnsw_config
    shard_kb = _kilobytes(dataset) // shards
    if shard_kb < LARGE_SET_KB:
        indexing = {"default_segment_number": 1, "indexing_threshold": max(1, shard_kb // 2)}
        hnsw = hnsw.model_copy(update={"full_scan_threshold": FULL_SCAN_KB})
    optimizers = spec.optimizers_config.model_copy(update=indexing)
    return spec.model_copy(update={"optimizers_config": optimizers, "hnsw_config": hnsw})


def shards_of(client: Qdrant, name: str) -> int:
    """Return the number of shards of a collection: by default a cluster creates one per node.

    It is one where the server does not report it, as the embedded engine.
    """
    try:
        cluster = client.call("GET", f"{collection_path(name)}/cluster")
    except QdrantError as error:
        if error.status not in (404, 501):
            raise
        return 1
    return max(1, int(cluster["shard_count"]))


def loading_spec(spec: CollectionSpec, dataset: Dataset) -> CollectionSpec:
    """Return the spec with a threshold that loading does not reach: one graph over all points is built at the end."""
    threshold = {"indexing_threshold": 10 * _kilobytes(dataset)}
    return spec.model_copy(update={"optimizers_config": spec.optimizers_config.model_copy(update=threshold)})


def _kilobytes(dataset: Dataset) -> int:
    return max(1, dataset.vectors.nbytes // 1024)


def prepare(
    client: Qdrant,
    spec: CollectionSpec,
    dataset: Dataset,
    on_progress: Callable[[str], None],
    stored: Stored = BY_ROW,
) -> CollectionSpec:
    """Create the collection, fill it and wait until it is indexed, each only if needed; return its final spec.

    The collection is the gate's own: one whose earlier tuning cannot be changed to this one is created again.
    """
    if plan_collection(spec, read_collection(client, spec.name)).refusals:
        client.call("DELETE", collection_path(spec.name))
    if client.collection(spec.name) is None or _count(client, spec, stored.scratch) < len(dataset.vectors):
        converge(client, loading_spec(fitted(spec, dataset, 1), dataset))
        insert(
            client,
            spec.name,
            dataset.vectors,
            partial(stored.payload, dataset),
            spec.batch_size,
            stored.identifier,
        )
        on_progress(f"Loaded {len(dataset.vectors)} points into {spec.name}; waiting for the index")
    spec = fitted(spec, dataset, shards_of(client, spec.name))
    converge(client, spec)
    # After the change of the threshold: some servers check whether to index only after a write.
    drop_scratch(client, spec, stored.scratch)
    wait_indexed(client, spec, on_progress)
    return spec


def _count(client: Qdrant, spec: CollectionSpec, scratch: str) -> int:
    """Count the points of the data set, without those that an interrupted run has written."""
    body = {"exact": True, "filter": {"must_not": within(scratch)["must"]}}
    return int(client.call("POST", f"{collection_path(spec.name)}/points/count", body)["count"])


def drop_scratch(client: Qdrant, spec: CollectionSpec, scratch: str = SCRATCH) -> None:
    """Delete what a run wrote."""
    client.call("POST", f"{collection_path(spec.name)}/points/delete?wait=true", {"filter": within(scratch)})


def wait_indexed(client: Qdrant, spec: CollectionSpec, on_progress: Callable[[str], None] = lambda _: None) -> None:
    """Wait until the collection is green, with progress every minute.

    After the deadline it returns, and the gate reports what is not ready.
    """
    began = said = time.monotonic()
    # Twice in a row: between two merges a collection is green for a moment.
    calm = 0
    while calm < 2 and time.monotonic() - began < INDEX_DEADLINE_S:
        missing = list(unready(client, spec))
        calm = 0 if missing else calm + 1
        if missing and time.monotonic() - said > WORD_EVERY_S:
            said = time.monotonic()
            on_progress(f"After {said - began:.0f} s: {missing[0]}")
        time.sleep(0.5)


def unready(client: Qdrant, spec: CollectionSpec) -> Iterator[str]:
    """Yield what makes the index unfit for a measurement: a scan of an unindexed collection is fast enough to pass."""
    info = client.collection(spec.name) or {}
    if info.get("status") != "green":
        yield f"the collection is {info.get('status')}, not green: it is still being optimized"
    if info.get("optimizer_status") != "ok":
        yield f"the optimizer reports {info.get('optimizer_status')}"
    points, indexed = info.get("points_count") or 0, info.get("indexed_vectors_count") or 0
    if indexed < INDEXED_SHARE * points or not points:
        yield f"only {indexed} of {points} vectors are indexed"
    segments, shards = info.get("segments_count") or 0, shards_of(client, spec.name)
    wanted = spec.optimizers_config.default_segment_number
    most = shards * (wanted + 2 if wanted else SEGMENTS_MAX)
    if segments > most:
        yield f"{segments} segments are left where {most} are the most expected: the optimizer is behind"


def measure_recall(client: Qdrant, spec: CollectionSpec, dataset: Dataset, stored: Stored = BY_ROW) -> Recall:
    """Measure the recall@10 of every query against exact search, without load."""
    tally: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for query, tenant, truth in zip(dataset.queries, dataset.query_tenants, dataset.truth, strict=True):
        body: dict[str, Any] = {
            "query": query.tolist(),
            "filter": within(tenant),
            "limit": TOP,
            "params": spec.search.params(),
            "with_payload": stored.shown(),
        }
        found = client.call("POST", f"{collection_path(spec.name)}/points/query", body)["points"]
        tally[tenant][0] += len({stored.row(point) for point in found} & truth)
        tally[tenant][1] += len(truth)
    return recall_of(tally, dataset.shares())
