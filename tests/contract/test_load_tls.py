"""The load gate over gRPC against a real server that speaks TLS alone: who signed it is checked."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from plinth.load import aggregation
from plinth.load.dataset import Dataset
from plinth.load.gate import Server
from plinth.load.locust_runner import Schedule, send
from plinth.qdrant.client import Qdrant, QdrantError
from plinth.qdrant.spec import load_specs
from plinth.system.tls import issue, make_authority
from tests.conftest import ROOT, free_port, real_qdrant

pytestmark = [
    pytest.mark.qdrant,
    pytest.mark.skipif(real_qdrant() is None, reason="no qdrant binary: the embedded engine has no gRPC"),
]
START_DEADLINE_S = 60
SPEC = next(s for s in load_specs(ROOT / "config" / "collections") if "embeddings" in s.aliases)
ROWS = np.eye(8, 384, dtype=np.float32)
DATA = Dataset("tls", ROWS, ("t",) * 8, ("noun",) * 8, ("w",) * 8, ROWS, ("t",) * 8, ("noun",) * 8, ("w",) * 8)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory, authority = tmp_path_factory.mktemp("tls"), make_authority("the environment's")
    pair, port, grpc_port = issue(authority, "qdrant", ["127.0.0.1"]), free_port(), free_port()
    for name, text in (("cert.pem", pair.cert), ("key.pem", pair.key)):
        (directory / name).write_text(text)
    config = {
        "telemetry_disabled": True,
        "service": {"host": "127.0.0.1", "http_port": port, "grpc_port": grpc_port, "api_key": "k", "enable_tls": True},
        "tls": {"cert": str(directory / "cert.pem"), "key": str(directory / "key.pem")},
        "storage": {"storage_path": str(directory / "storage"), "snapshots_path": str(directory / "snapshots")},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    command = [str(real_qdrant()), "--config-path", str(directory / "config.yaml")]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, cwd=directory, stdout=log, stderr=log) as run:
        try:
            found = Server(f"https://127.0.0.1:{port}", "k", f"127.0.0.1:{grpc_port}", authority.cert)
            _fill(found, directory / "log")
            yield found
        finally:
            run.terminate()


def _fill(server: Server, log: Path) -> None:
    end = time.monotonic() + START_DEADLINE_S
    with Qdrant(server.url, "k", ca_cert=server.ca_cert) as client:
        while True:
            try:
                client.call("PUT", f"/collections/{SPEC.name}", {"vectors": {"size": 384, "distance": "Cosine"}})
                break
            except QdrantError:
                assert time.monotonic() < end, log.read_text()[-2000:]
                time.sleep(0.2)
        points = [{"id": n, "vector": row.tolist(), "payload": {"org_id": "t"}} for n, row in enumerate(ROWS)]
        client.call("PUT", f"/collections/{SPEC.name}/points?wait=true", {"points": points})


def measured(server: Server) -> aggregation.Operation:
    schedule = Schedule(rate_per_s=20, warmup_s=0.5, duration_s=3, mix={"search": 1})
    found = send(server.aim("grpc", SPEC), schedule, DATA, ROOT / "load" / "locustfile.py")
    return aggregation.operation(aggregation.times([found])["search"], aggregation.elapsed([found]), 0.95)


@pytest.mark.requirement("S1-07")
def test_requests_go_over_tls_with_the_environments_signer(server: Server) -> None:
    found = measured(server)
    assert found.count > 20
    assert found.errors == 0, found.first_error


def test_a_server_that_somebody_else_signed_gets_no_request(server: Server) -> None:
    stranger = Server(server.url, server.api_key, server.grpc, make_authority("another").cert)
    found = measured(stranger)
    assert found.count == 0
    assert found.errors > 20
    assert "handshake failed" in str(found.first_error)
