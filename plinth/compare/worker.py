"""A client of one store: `python -m plinth.compare.worker JOB.json`, in the comparison's own environment.

A job holds the task (load, recall, search) and where to write the result; every store is queried by the same loop.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from plinth.compare.adapters import STORES, Matrix, Store

BATCH = 500
GO_DEADLINE_S = 180


def load(store: Store, data: Any, _job: dict[str, Any]) -> dict[str, Any]:
    """Insert everything and build the index; return the seconds for both together."""
    vectors, tenants = data["vectors"], data["tenants"].tolist()
    store.create(vectors.shape[1])
    began = time.monotonic()
    for start in range(0, len(vectors), BATCH):
        store.add(start, vectors[start : start + BATCH], tenants[start : start + BATCH])
    inserted = time.monotonic()
    store.finish()
    return {"insert_s": inserted - began, "build_s": time.monotonic() - began}


def prepare(store: Store, _data: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Set ef, where the store supports it."""
    store.prepare(job["ef"])
    return {}


def recall(store: Store, data: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Return the recall@10 of the first half of the queries, or of the other, held-out half."""
    store.prepare(job["ef"])
    asked = list(_asked(data, job["filtered"]))
    half = len(asked) // 2
    return {"recall_at_10": _recall(store, asked[half:] if job["held_out"] else asked[:half])}


def search(store: Store, data: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Run one client that waits for each answer; return the ms of each, from the moment all clients start together."""
    store.prepare(job["ef"])
    questions = [store.question(query, tenant) for query, tenant, _ in _asked(data, job["filtered"])]
    for ask in questions[:20]:
        ask()
    Path(job["ready"]).touch()
    patience = time.monotonic() + GO_DEADLINE_S
    while not Path(job["go"]).exists():
        if time.monotonic() > patience:
            raise TimeoutError("nobody gave the sign to begin")
        time.sleep(0.01)
    end, number, times = time.monotonic() + job["seconds"], job["client"] * 97, []
    while time.monotonic() < end:
        began = time.perf_counter()
        questions[number % len(questions)]()
        times.append((time.perf_counter() - began) * 1000)
        number += 1
    return {"ms": times, "cpu_s": time.process_time()}


def _asked(data: Any, filtered: bool) -> Iterator[tuple[Matrix, str | None, set[int]]]:
    truth = data["truth_filtered" if filtered else "truth"]
    for query, tenant, wanted in zip(data["queries"], data["query_tenants"].tolist(), truth, strict=True):
        yield query, tenant if filtered else None, {int(row) for row in wanted if row >= 0}


def _recall(store: Store, asked: list[tuple[Matrix, str | None, set[int]]]) -> float:
    scores = [len(set(store.question(query, tenant)()) & wanted) / len(wanted) for query, tenant, wanted in asked]
    return float(np.mean(scores))


def main() -> None:
    """Run the job, and write its result."""
    job = json.loads(Path(sys.argv[1]).read_text())
    store = STORES[job["store"]](job)
    do = {"load": load, "prepare": prepare, "recall": recall, "search": search}[job["do"]]
    with np.load(job["data"]) as data:
        result = do(store, data, job)
    Path(job["out"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
