"""The gate's own collection: made with the tuning that ships, filled once, checked before and after."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from plinth.load.dataset import LARGE_TENANT, TOP, Dataset, payload
from plinth.load.workload import SCRATCH, within
from plinth.qdrant.apply import converge
from plinth.qdrant.client import Qdrant
from plinth.qdrant.spec import CollectionSpec

INDEX_DEADLINE_S = 600.0
INDEXED_SHARE = 0.9
# The least that Qdrant takes seriously in KB; a tenant above it (66 vectors of 384) is searched through its graph.
FULL_SCAN_KB = 100


@dataclass(frozen=True)
class Recall:
    """recall@10 overall, and within each tenant of more than 5 % of the points."""

    overall: float
    by_large_tenant: dict[str, float]


def gate_spec(shipped: CollectionSpec, dataset: Dataset) -> CollectionSpec:
    """The shipped tuning of `embeddings` under a name of the gate's own, its thresholds of size scaled to the data.

    A set that a laptop embeds in half a minute lies below Qdrant's thresholds: it would be scanned, which is exact and
    quick, and a graph that fell apart would pass. So all of it is indexed, in one segment whatever the number of cores.
    """
    kilobytes = dataset.vectors.nbytes // 1024 // (shipped.shard_number or 1)
    return shipped.model_copy(
        update={
            "name": f"plinth_load_{dataset.name.rpartition('-')[2]}",
            "aliases": (),
            "description": "load gate",
            "hnsw_config": shipped.hnsw_config.model_copy(update={"full_scan_threshold": FULL_SCAN_KB}),
            "optimizers_config": shipped.optimizers_config.model_copy(
                update={"default_segment_number": 1, "indexing_threshold": kilobytes // 2}
            ),
        }
    )


def loading_spec(spec: CollectionSpec) -> CollectionSpec:
    """The same with a threshold that loading does not reach, so that one graph is built over all points at the end."""
    threshold = 10 * (spec.optimizers_config.indexing_threshold or 0)
    optimizers = spec.optimizers_config.model_copy(update={"indexing_threshold": threshold})
    return spec.model_copy(update={"optimizers_config": optimizers})


def prepare(client: Qdrant, spec: CollectionSpec, dataset: Dataset, on_progress: Callable[[str], None]) -> None:
    """Make the collection if it is not there, fill it if it is not full, and wait until it is indexed."""
    if client.collection(spec.name) is None or _stored(client, spec) < len(dataset.vectors):
        converge(client, loading_spec(spec))
        for start in range(0, len(dataset.vectors), spec.batch_size):
            rows = range(start, min(start + spec.batch_size, len(dataset.vectors)))
            points = [
                {"id": row, "vector": dataset.vectors[row].tolist(), "payload": payload(dataset, row)} for row in rows
            ]
            client.call("PUT", f"/collections/{spec.name}/points?wait=true", {"points": points})
        on_progress(f"Loaded {len(dataset.vectors)} points into {spec.name}; waiting for the index")
    converge(client, spec)
    # After the change of the threshold: a server that looks for work only after a write finds it now.
    drop_scratch(client, spec)
    wait_indexed(client, spec)


def _stored(client: Qdrant, spec: CollectionSpec) -> int:
    """The points of the data set, without what a run that was cut off has left."""
    body = {"exact": True, "filter": {"must_not": within(SCRATCH)["must"]}}
    return int(client.call("POST", f"/collections/{spec.name}/points/count", body)["count"])


def drop_scratch(client: Qdrant, spec: CollectionSpec) -> None:
    """Remove what a run wrote."""
    client.call("POST", f"/collections/{spec.name}/points/delete?wait=true", {"filter": within(SCRATCH)})


def wait_indexed(client: Qdrant, spec: CollectionSpec) -> None:
    """Wait until the collection is green; past the deadline go on, the gate will say what is not ready."""
    deadline = time.monotonic() + INDEX_DEADLINE_S
    # Twice in a row: between two merges a collection is green for a moment.
    calm = 0
    while calm < 2 and time.monotonic() < deadline:
        calm = calm + 1 if not list(unready(client, spec)) else 0
        time.sleep(0.5)


def unready(client: Qdrant, spec: CollectionSpec) -> Iterator[str]:
    """What makes the index unfit to be measured: a scan of an unindexed collection is quick enough to pass."""
    info = client.collection(spec.name) or {}
    if info.get("status") != "green":
        yield f"the collection is {info.get('status')}, not green: it is still being optimized"
    if info.get("optimizer_status") != "ok":
        yield f"the optimizer reports {info.get('optimizer_status')}"
    points, indexed = info.get("points_count") or 0, info.get("indexed_vectors_count") or 0
    if indexed < INDEXED_SHARE * points or not points:
        yield f"only {indexed} of {points} vectors are indexed"


def measure_recall(client: Qdrant, spec: CollectionSpec, dataset: Dataset) -> Recall:
    """recall@10 of every query against exact search, without load."""
    shares = dataset.shares()
    scores: list[float] = []
    large: dict[str, list[float]] = defaultdict(list)
    for query, tenant, truth in zip(dataset.queries, dataset.query_tenants, dataset.truth(), strict=True):
        body: dict[str, Any] = {
            "query": query.tolist(),
            "filter": within(tenant),
            "limit": TOP,
            "params": spec.search.params(),
        }
        found = client.call("POST", f"/collections/{spec.name}/points/query", body)["points"]
        score = len({point["id"] for point in found} & truth) / len(truth)
        scores.append(score)
        if shares[tenant] > LARGE_TENANT:
            large[tenant].append(score)
    return Recall(sum(scores) / len(scores), {tenant: sum(found) / len(found) for tenant, found in large.items()})
