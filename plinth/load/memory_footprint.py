"""The measured memory of a collection against the estimate of `plinth size`: it is loaded into a temporary server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plinth.load.bulk_load import fill
from plinth.load.synthetic_vectors import Generated, generate
from plinth.qdrant.client import Qdrant, collection_path
from plinth.qdrant.ephemeral import Kind, scratch
from plinth.qdrant.spec import CollectionSpec
from plinth.sizing import Workload, estimate, quantization_name
from plinth.system.memory import Memory

TENANT = "tenant"
SEARCHES = 300
PAGE = 1000


@dataclass(frozen=True)
class Footprint:
    """Measured and computed bytes of one load; ``empty`` is the server before the first point."""

    engine: str
    workload: Workload
    empty: Memory
    measured: Memory
    disk: int

    @property
    def predicted(self) -> float:
        """Return the memory with everything cached, by the formula."""
        return estimate(self.workload).need.total

    @property
    def ratio(self) -> float:
        """Return computed over measured memory: above 1 is on the safe side."""
        return self.predicted / self.measured.total


def measure(kind: Kind, directory: Path, spec: CollectionSpec, points: int, payload_bytes: int) -> Footprint:
    """Load generated points, restart, read everything by searches and a scroll, and read the memory.

    The restart frees what only the load needed; the rest is what a server needs to serve.
    """
    data = generate(points, spec.vectors.size, 20, SEARCHES, seed=3)
    texts = _texts(points, payload_bytes)
    with scratch(kind, directory) as engine:
        empty = engine.memory()
        with Qdrant(engine.url, engine.api_key, timeout_s=120) as client:
            fill(client, spec, data.vectors, lambda row: {TENANT: f"t{data.tenants[row]}", "text": texts[row]})
        engine.stop()
        engine.start()
        with Qdrant(engine.url, engine.api_key, timeout_s=120) as client:
            _touch(client, spec, data)
            named = client.banner()
        return Footprint(named, _workload(spec, points, payload_bytes), empty, engine.memory(), engine.disk())


def sized_spec(dimensions: int, points: int, **sections: Any) -> CollectionSpec:
    """Return a collection whose points are all indexed, however few they are."""
    indexing = {"default_segment_number": 1, "indexing_threshold": points * dimensions * 4 // 1024 // 2}
    return CollectionSpec.model_validate(
        {
            "name": "sized",
            "vectors": {"size": dimensions, "distance": "Cosine"},
            "optimizers_config": indexing,
            "payload_indexes": {TENANT: {"type": "keyword", "is_tenant": True}},
            **sections,
        }
    )


def _workload(spec: CollectionSpec, points: int, payload_bytes: int) -> Workload:
    graph = spec.hnsw_config
    return Workload(
        vectors=points,
        dimensions=spec.vectors.size,
        quantization=quantization_name(spec.quantization_config),
        m=16 if graph.m is None else graph.m,
        payload_m=graph.payload_m or 0,
        linked_fields=len(spec.payload_indexes),
        payload_bytes=payload_bytes,
        indexed_bytes=3,
    )


def _texts(points: int, length: int) -> list[str]:
    """Return words in random order: they compress by half, as prose does."""
    chance = np.random.default_rng(5)
    words = ["".join(chr(97 + letter) for letter in chance.integers(0, 26, 6)) for _ in range(2000)]
    picked = chance.integers(0, len(words), (points, length // 7 + 1))
    return [" ".join(words[number] for number in row)[:length] for row in picked]


def _touch(client: Qdrant, spec: CollectionSpec, data: Generated) -> None:
    """Read graph and quantized vectors by searches, and originals and payload by a scroll."""
    points = f"{collection_path(spec.name)}/points"
    for query, tenant in zip(data.queries, data.query_tenants, strict=True):
        within = {"must": [{"key": TENANT, "match": {"value": f"t{tenant}"}}]}
        client.call("POST", f"{points}/query", {"query": query.tolist(), "filter": within, "limit": 10})
    offset = 0
    while offset is not None:
        body = {"limit": PAGE, "offset": offset, "with_payload": True, "with_vector": True}
        offset = client.call("POST", f"{points}/scroll", body)["next_page_offset"]
