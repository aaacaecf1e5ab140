"""Benchmarks of the engine on a data set of known difficulty: p95 with a few clients, recall overall and by tenant.

It is not a test: absolute times depend on the machine. `make bench` records them.
"""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson

from plinth.load.batch_insert import insert
from plinth.load.collection_setup import wait_indexed
from plinth.load.dataset import LARGE_TENANT, nearest
from plinth.load.own_collection import own_collection
from plinth.load.synthetic_vectors import Generated, generate, intrinsic_dimension
from plinth.qdrant.apply import converge
from plinth.qdrant.client import Qdrant, collection_path
from plinth.qdrant.load_mark import PREFIX
from plinth.qdrant.spec import CollectionSpec

BATCH = 500


def measure(
    url: str,
    api_key: str | None,
    shipped: CollectionSpec,
    *,
    points: int = 50000,
    builds: int = 3,
    clients: int = 4,
    tenants: int = 50,
    queries: int = 1000,
    seconds: float = 10.0,
    on_progress: Callable[[str], None],
) -> dict[str, Any]:
    """Build the shipped tuning several times on identical data, since graphs differ from build to build."""
    data = generate(points, shipped.vectors.size, tenants, queries, seed=1)
    shares = np.bincount(data.tenants, minlength=tenants) / points
    truth = [
        nearest(data.vectors, query, data.tenants == tenant)
        for query, tenant in zip(data.queries, data.query_tenants, strict=True)
    ]
    with Qdrant(url, api_key) as client:
        engine = client.banner()
    results = []
    for build in range(builds):
        benched = shipped.model_copy(update={"name": f"{PREFIX}bench_{build}", "aliases": ()})
        with (
            Qdrant(url, api_key, timeout_s=120) as client,
            own_collection(client, benched, keep=False, say=on_progress) as spec,
        ):
            took = _load(client, spec, data)
            on_progress(f"build {build + 1} of {builds}: loaded and indexed in {took:.0f} s")
            recalls = _recalls(client, spec, data, truth)
            latency = _latency(url, api_key, spec, data, clients, seconds)
        large = {
            f"{shares[tenant]:.1%}": float(
                np.mean([r for r, t in zip(recalls, data.query_tenants, strict=True) if t == tenant])
            )
            for tenant in np.flatnonzero(shares > LARGE_TENANT)
        }
        results.append(
            {"build_s": took, "recall_at_10": float(np.mean(recalls)), "recall_by_large_tenant": large, **latency}
        )
        on_progress(
            f"build {build + 1} of {builds}: recall {results[-1]['recall_at_10']:.3f}, p95 {latency['p95_ms']:.1f} ms"
        )
    return {
        "engine": engine,
        "points": points,
        "dimensions": shipped.vectors.size,
        "intrinsic_dimension": intrinsic_dimension(data.vectors),
        "clients": clients,
        "builds": results,
    }


def _load(client: Qdrant, spec: CollectionSpec, data: Generated) -> float:
    began = time.monotonic()
    client.call("DELETE", collection_path(spec.name))
    converge(client, spec)
    insert(client, spec.name, data.vectors, lambda row: {spec.tenant or "tenant": f"t{data.tenants[row]}"}, BATCH)
    wait_indexed(client, spec)
    return time.monotonic() - began


def _body(spec: CollectionSpec, data: Generated, row: int) -> dict[str, Any]:
    condition = {"key": spec.tenant or "tenant", "match": {"value": f"t{data.query_tenants[row]}"}}
    return {
        "query": data.queries[row].tolist(),
        "filter": {"must": [condition]},
        "limit": 10,
        "params": spec.search.params(),
    }


def _recalls(client: Qdrant, spec: CollectionSpec, data: Generated, truth: Sequence[set[int]]) -> list[float]:
    found = (
        client.call("POST", f"{collection_path(spec.name)}/points/query", _body(spec, data, row))["points"]
        for row in range(len(data.queries))
    )
    return [
        len({hit["id"] for hit in hits} & wanted) / len(wanted)
        for hits, wanted in zip(found, truth, strict=True)
        if wanted
    ]


def _latency(
    url: str, api_key: str | None, spec: CollectionSpec, data: Generated, clients: int, seconds: float
) -> dict[str, float]:
    """Measure the latency of clients that each wait for their answer: at that concurrency, not at a rate."""
    bodies = [orjson.dumps(_body(spec, data, row)) for row in range(len(data.queries))]
    parts = urlsplit(url)
    headers = {"api-key": api_key or "", "content-type": "application/json", "accept-encoding": "identity"}
    took: list[float] = []
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port)
        for body in itertools.islice(itertools.cycle(bodies), number * 97, None):
            if time.monotonic() > end:
                break
            began = time.perf_counter()
            connection.request("POST", f"{collection_path(spec.name)}/points/query", body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                took.append(time.perf_counter() - began)
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p95, p99 = (float(value) * 1000 for value in np.percentile(took, [50, 95, 99]))
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "qps": len(took) / seconds}
