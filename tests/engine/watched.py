"""A local stack that is watched, with some traffic in it: what its dashboards and rules have to show."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psycopg
import pytest
import redis
from qdrant_client import QdrantClient

from plinth.gateway.caller import Scope
from plinth.gateway.tokens import issue_token
from plinth.status_files.backup_runs import FILE, Run, record
from plinth.status_files.events import FILE as MARKS
from plinth.status_files.events import mark_load
from plinth.vectors.v1 import vectors_pb2, vectors_pb2_grpc
from tests.conftest import free_port
from tests.engine.project import Project
from tests.prometheus import samples, values
from tests.promql import names
from tests.waiting import wait_for

ALONE = "one node has no consensus; the names are read from a cluster of one below"
NO_LOGS = "logs are not kept here; test_logs_stack.py has a stack that keeps them"
AGENTS = (
    "fluentbit_output_proc_records_total",
    "fluentbit_output_retries_total",
    "fluentbit_output_dropped_records_total",
)
CONTAINERS = tuple(
    f"plinth_service_{name}"
    for name in (
        *("working_set_bytes", "unreclaimable_bytes", "memory_limit_bytes"),
        *("cpu_throttled_periods_total", "cpu_throttled_seconds_total"),
    )
)
GATE = "plinth_load_gate_collection"
NO_CONTAINERS = "nothing limits a process; test_docker_stack.py has a stack of containers"
# A metric that the stack here cannot have, and why.
ABSENT = (
    dict.fromkeys(
        (
            "cluster_peers_total",
            "cluster_working_state",
            "cluster_pending_operations_total",
            "cluster_term",
            "cluster_commit",
        ),
        ALONE,
    )
    | dict.fromkeys(AGENTS, NO_LOGS)
    | dict.fromkeys(CONTAINERS, NO_CONTAINERS)
    | {GATE: "the load gate has dropped its collection; the rule's own test has one"}
)
NOT_EMBEDDED = "the embedded engine is one process without gRPC, shards, jemalloc or a count of its work"
ABSENT_EMBEDDED = dict.fromkeys(
    (
        "grpc_responses_total",
        "grpc_responses_duration_seconds_bucket",
        "grpc_responses_duration_seconds_count",
        "memory_resident_bytes",
        "collection_hardware_metric_cpu",
        "plinth_collection_active_replicas_min",
        "collection_shard_transfer_incoming",
        "collection_shard_transfer_outgoing",
        "collection_dead_replicas",
        "snapshot_creation_running",
        "snapshot_recovery_running",
    ),
    NOT_EMBEDDED,
)


class Live:
    """A stack with some traffic, and its Prometheus."""

    def __init__(self, project: Project, engine: str) -> None:
        self.project = project
        self.absent = ABSENT | (ABSENT_EMBEDDED if engine == "embedded" else {})
        self.outputs = project.outputs()
        self.prometheus = self.outputs["prometheus"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return samples(self.prometheus, expression)


@contextmanager
def watched(engine: str, **monitoring: Any) -> Iterator[Live]:
    """Such a stack on a Qdrant engine, with more settings of monitoring."""
    # Not pytest's own directory, which it closes to others: Postgres runs as another user, who must be able to enter.
    with tempfile.TemporaryDirectory(prefix="plinth-watched-") as directory:
        Path(directory).chmod(0o711)
        project = Project(Path(directory), engine)
        project.settings["plinth:monitoring"]["prometheus"]["scrape_interval_sec"] = 5
        project.settings["plinth:monitoring"] |= monitoring
        ports = {key: free_port() for key in ("http_port", "grpc_port", "worker_port")}
        project.settings["plinth:gateway"] = {"enabled": True, "provider": {"name": "mock"}, **ports}
        project.save()
        try:
            project.plinth("up", "t", "--no-verify")
            leave_results(project.root / ".plinth" / "t" / "data")
            found = Live(project, engine)
            # Twice, with scrapes between: a rate wants a change.
            for _ in range(2):
                make_traffic(found.outputs, engine)
                settle(found)
            yield found
        finally:
            project.plinth("down", "t", "--yes")


def leave_results(data: Path) -> None:
    """What a backup, a check, a drill and a load run leave behind."""
    run = Run(attempted_at=time.time(), duration_s=3, result="ok", size_bytes=10**6, stores={"qdrant": "ok"})
    for kind in ("backup", "check", "drill"):
        record(data / "plinth-backup" / "state" / FILE, kind, run)  # type: ignore[arg-type]
    row = {"p95_ms": 4, "p99_ms": 6, "target_ms": 50, "rps": 20, "errors": 0, "recall_at_10": 0.99}
    mark_load(data / "plinth-exporter" / "state" / MARKS, {"verdict": "pass", "operations": {"search": row}})


def make_traffic(outputs: dict[str, Any], engine: str) -> None:
    """Points, searches, a snapshot; a table, a key."""
    where, generator = outputs["qdrant"], np.random.default_rng(0)
    with httpx.Client(base_url=where["url"], headers={"api-key": where["api_key"]}, timeout=30) as client:
        for name, size, field in (("trades", 768, "user_id"), ("embeddings", 384, "org_id")):
            vectors = generator.normal(size=(60, size)).tolist()
            points = [{"id": n, "vector": v, "payload": {field: f"t{n % 2}"}} for n, v in enumerate(vectors)]
            assert client.put(f"/collections/{name}/points?wait=true", json={"points": points}).is_success
            for vector in vectors[:20]:
                body = {"query": vector, "limit": 5, "filter": {"must": [{"key": field, "match": {"value": "t0"}}]}}
                assert client.post(f"/collections/{name}/points/query", json=body).is_success
        assert client.post("/collections/trades/snapshots").is_success
    if engine == "server":
        http, grpc = (int(where[key].rpartition(":")[2]) for key in ("url", "grpc_url"))
        with pytest.warns(UserWarning, match="insecure"):
            remote = QdrantClient(
                "127.0.0.1", port=http, grpc_port=grpc, prefer_grpc=True, https=False, api_key=where["api_key"]
            )
        for _ in range(10):
            remote.query_points("embeddings", query=[0.1] * 384, limit=3)
        remote.close()
    ask_gateway(outputs["gateway"])
    store = outputs["postgres"]
    with psycopg.connect(
        host=store["host"], port=store["port"], user=store["user"], password=store["password"], dbname="postgres"
    ) as connection:
        connection.execute("SELECT count(*) FROM pg_class")
    cache = redis.Redis(**outputs["redis"])
    cache.set("k", "v")
    cache.get("k")
    cache.close()


def ask_gateway(where: dict[str, Any]) -> None:
    """Points, searches that its cache has and has not, a job, a mistake; one call over gRPC."""
    token = f"Bearer {issue_token(where['signing_key'], 'acme', 'ann', scopes=tuple(Scope))}"
    with httpx.Client(base_url=where["url"], headers={"authorization": token}, timeout=30) as client:
        name = f"c-{uuid.uuid4().hex[:8]}"
        client.post("/v1/collections", json={"name": name, "dimension": 2, "distance": "Dot"}).raise_for_status()
        points = [{"id": "a", "vector": [1, 0]}]
        client.put(f"/v1/collections/{name}/points", json={"points": points}).raise_for_status()
        for _ in range(5):
            client.post(f"/v1/collections/{name}/search", json={"vector": [1, 0]}).raise_for_status()
        assert client.get("/v1/collections/missing").status_code == 404
        job = client.post("/vectors/mock", json={"asset_id": name, "segment_id": "0"}).raise_for_status().json()
        wait_for(
            lambda: client.get(f"/jobs/{job['job_id']}").json()["status"] == "completed", "the job was not completed"
        )
    with grpc.insecure_channel(where["grpc_url"].removeprefix("http://")) as channel:
        stub = vectors_pb2_grpc.VectorServiceStub(channel)
        stub.ListCollections(vectors_pb2.ListCollectionsRequest(), metadata=(("authorization", token),), timeout=30)


def settle(live: Live) -> None:
    """Until the exporter has ended a round that began after the traffic, and Prometheus has read it three times."""
    began = time.time()

    def read() -> bool:
        rounds = values(live.prometheus, "plinth_exporter_last_round_timestamp_seconds")
        reads = values(live.prometheus, "min(count_over_time(up[1m]))")
        return bool(rounds) and float(rounds[0]) > began and float(reads[0]) >= 4

    wait_for(read, "the exporter ended no round")
    time.sleep(11)


def is_absent(live: Live, expression: str) -> bool:
    """Whether an expression rests on a metric that cannot be here."""
    return bool(live.absent.keys() & names(expression))
