"""The load gate's own collection on each engine, and a whole run against a server that is slow."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest

from plinth.errors import UserError
from plinth.load import bench, gate
from plinth.load.collection_setup import fitted, gate_spec, loading_spec, measure_recall, prepare, shards_of, unready
from plinth.load.dataset import Dataset
from plinth.load.html_report import page
from plinth.load.locust_runner import Protocol
from plinth.load.own_collection import own_collection
from plinth.load.report import Report
from plinth.load.slo import Slo, load_slo
from plinth.load.workload import SCRATCH
from plinth.qdrant.apply import converge
from plinth.qdrant.client import Qdrant
from plinth.qdrant.spec import CollectionSpec, load_specs
from tests.cluster import Cluster
from tests.conftest import KEY, ROOT, Server, real_qdrant

SLO = load_slo(ROOT / "load" / "slo.yaml")
EMBEDDINGS = next(s for s in load_specs(ROOT / "config" / "collections") if "embeddings" in s.aliases)


def dataset(name: str, queries: int = 100) -> Dataset:
    """Two tenants of 1,000 points under a spectrum that falls off, as embeddings' does."""
    chance = np.random.default_rng(1)
    rows = chance.normal(size=(2000 + queries, 384)) * np.arange(1, 385) ** -0.6
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    tenants = tuple("ab"[row % 2] for row in range(len(rows)))
    same = ("x",) * 2000
    return Dataset(
        f"test-{name}",
        rows[:2000],
        tenants[:2000],
        same,
        same,
        rows[2000:],
        tenants[2000:],
        same[:queries],
        same[:queries],
    )


def quiet(_: str) -> None:
    """No progress is shown."""


@pytest.fixture
def client(server: Server) -> Iterator[Qdrant]:
    with Qdrant(server.url, KEY) as connected:
        yield connected


def starved(spec: CollectionSpec) -> CollectionSpec:
    """So few links that the graph falls into pieces."""
    hnsw = spec.hnsw_config.model_copy(update={"payload_m": 2, "ef_construct": 4})
    return spec.model_copy(update={"hnsw_config": hnsw, "search": spec.search.model_copy(update={"hnsw_ef": 10})})


@pytest.mark.requirement("S4-11")
def test_recall_tells_the_shipped_tuning_from_a_graph_that_fell_apart(client: Qdrant) -> None:
    data = dataset("graph")
    shipped = gate_spec(EMBEDDINGS, data)
    shipped = prepare(client, shipped, data, quiet)
    assert list(unready(client, shipped)) == []
    whole = measure_recall(client, shipped, data)
    assert whole.overall >= SLO.recall.overall
    assert set(whole.large_tenants) == {"a", "b"}

    broken = starved(shipped)
    prepare(client, broken, data, quiet)
    assert measure_recall(client, broken, data).overall < SLO.recall.overall
    client.call("DELETE", f"/collections/{shipped.name}")


def test_a_set_that_is_loaded_and_not_indexed_is_not_ready(client: Qdrant) -> None:
    data = dataset("unindexed")
    spec = gate_spec(EMBEDDINGS, data)
    converge(client, loading_spec(spec, data))
    points = [{"id": n, "vector": data.vectors[n].tolist(), "payload": {"org_id": "a"}} for n in range(1000)]
    client.call("PUT", f"/collections/{spec.name}/points?wait=true", {"points": points})
    assert "only 0 of 1000 vectors are indexed" in list(unready(client, spec))
    client.call("DELETE", f"/collections/{spec.name}")


@pytest.mark.parametrize("rows", [2_000, 200_000])
def test_a_set_of_any_size_is_indexed_once_it_is_loaded(rows: int) -> None:
    data = replace(dataset("sized"), vectors=np.zeros((rows, 384), np.float32))
    spec = gate_spec(EMBEDDINGS, data)
    at = fitted(spec, data, 1).optimizers_config.indexing_threshold
    # A threshold that the file leaves out would stay at the one for loading.
    assert at is not None
    assert at < data.vectors.nbytes // 1024 < (loading_spec(spec, data).optimizers_config.indexing_threshold or 0)


def test_a_second_run_keeps_the_points_and_removes_what_was_written(client: Qdrant) -> None:
    data = dataset("again")
    spec = gate_spec(EMBEDDINGS, data)
    prepare(client, spec, data, quiet)
    left = {"id": 1_000_000_000, "vector": data.vectors[0].tolist(), "payload": {"org_id": SCRATCH}}
    client.call("PUT", f"/collections/{spec.name}/points?wait=true", {"points": [left]})
    said: list[str] = []
    prepare(client, spec, data, said.append)
    assert said == []
    assert client.call("POST", f"/collections/{spec.name}/points/count", {"exact": True})["count"] == 2000
    client.call("DELETE", f"/collections/{spec.name}")


def test_collections_are_made_and_dropped_one_at_a_time(client: Qdrant) -> None:
    spec = gate_spec(EMBEDDINGS, dataset("made"))
    created = gate.create(client, spec, 3)
    assert created is not None
    assert created.response.total == 3
    assert [name for name in client.collections() if name.startswith(spec.name)] == []


def test_a_collection_that_the_shipped_tuning_no_longer_fits_is_made_anew(client: Qdrant) -> None:
    data = dataset("anew")
    spec = gate_spec(EMBEDDINGS, data)
    vectors = spec.vectors.model_copy(update={"distance": "Dot"})
    prepare(client, spec.model_copy(update={"vectors": vectors}), data, quiet)
    spec = prepare(client, spec, data, quiet)
    assert (client.collection(spec.name) or {})["config"]["params"]["vectors"]["distance"] == "Cosine"
    assert list(unready(client, spec)) == []
    client.call("DELETE", f"/collections/{spec.name}")


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_bench_leaves_no_collection_either(
    embedded: Callable[..., Server], interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def latency(*_: object) -> dict[str, float]:
        if interrupted:
            raise KeyboardInterrupt
        return {"p95_ms": 1.0}

    monkeypatch.setattr(bench, "_latency", latency)
    small = EMBEDDINGS.optimizers_config.model_copy(update={"indexing_threshold": 100})
    spec, server = EMBEDDINGS.model_copy(update={"optimizers_config": small}), embedded()
    with suppress(KeyboardInterrupt):
        bench.measure(server.url, KEY, spec, points=600, builds=1, tenants=3, queries=20, on_progress=quiet)
    with Qdrant(server.url, KEY) as client:
        assert client.collections() == []


@pytest.mark.skipif(real_qdrant() is None, reason="needs a qdrant binary on PATH")
def test_a_small_set_is_indexed_on_each_of_three_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.load.collection_setup.INDEX_DEADLINE_S", 120)
    data, cluster = dataset("nodes"), Cluster(tmp_path, 3)
    try:
        first = cluster.nodes[0]
        with own_collection(first, gate_spec(EMBEDDINGS, data), keep=False, say=quiet) as spec:
            ready = prepare(first, spec, data, quiet)
            assert shards_of(first, ready.name) == 3
            for node in cluster.nodes:
                assert list(unready(node, ready)) == []
            assert measure_recall(first, ready, data).overall >= SLO.recall.overall
        assert [node.collections() for node in cluster.nodes] == [[], [], []]
    finally:
        cluster.stop()


@pytest.fixture
def delayed() -> Iterator[Callable[[str, float], str]]:
    """Makes a proxy before a server that answers searches so many seconds later; returns its address."""
    proxies: list[ThreadingHTTPServer] = []
    http = httpx.Client(headers={"accept-encoding": "identity"})

    def start(upstream: str, seconds: float) -> str:
        class Proxy(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.path.endswith("/query"):
                    time.sleep(seconds)
                kept = {k: v for k, v in self.headers.items() if k.lower() in ("api-key", "content-type")}
                answer = http.request(self.command, upstream + self.path, content=body, headers=kept)
                self.send_response(answer.status_code)
                self.send_header("content-length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        proxies.append(ThreadingHTTPServer(("127.0.0.1", 0), Proxy))
        proxies[-1].daemon_threads = True
        threading.Thread(target=proxies[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{proxies[-1].server_address[1]}"

    yield start
    for proxy in proxies:
        proxy.shutdown()
    http.close()


def short(**changes: object) -> Slo:
    """The shipped targets, a run of seconds and only searches, on a machine that may be busy with other tests."""
    small = {"rate_per_s": 20, "warmup_s": 0.5, "duration_s": 4, "mix": {"search": 1.0}, "min_samples": 10, "rounds": 2}
    profile = SLO.profile("smoke").model_copy(update={**small, **changes})
    patient = SLO.generator.model_copy(update={"max_lag_p95_ms": 5000, "min_headroom": 1})
    return SLO.model_copy(update={"profiles": {"short": profile}, "generator": patient})


def unhurried(slo: Slo) -> Slo:
    """Targets that any machine meets: what is tried is not its speed."""
    targets = {
        name: target.model_copy(update={"p95_ms": 20_000, "p99_ms": 20_000}) for name, target in slo.operations.items()
    }
    return slo.model_copy(update={"operations": targets})


def judged(server: gate.Server, slo: Slo, cache: Path, protocol: Protocol = "rest") -> tuple[Report, list[str]]:
    said: list[str] = []
    report = gate.run(
        server,
        "short",
        slo,
        EMBEDDINGS,
        protocol=protocol,
        cache=cache,
        locustfile=ROOT / "load" / "locustfile.py",
        on_progress=said.append,
    )
    return report, said


@pytest.mark.requirement("S2-02")
def test_a_slow_server_fails_after_a_second_look(
    embedded: Callable[..., Server],
    delayed: Callable[[str, float], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(gate, "dataset", lambda *_: dataset("slow", queries=20))
    report, said = judged(gate.Server(delayed(embedded().url, 0.2), KEY), short(), tmp_path)
    assert (report.verdict.word, report.verdict.exit_code) == ("fail", 1), report.to_json()
    assert "over 50 ms" in report.verdict.reasons[0]
    assert any(words.startswith("Another round: search: p95 is") for words in said)
    found = report.to_json()
    assert [round_["verdict"] for round_ in found["earlier_rounds"]] == ["fail"]
    # The answers of both rounds count.
    assert found["operations"]["search"]["count"] > 100
    assert found["operations"]["search"]["p50_ms"] > 200
    assert KEY not in str(found) + page(report)


@pytest.mark.requirement("S4-11")
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_every_operation_is_measured_and_the_server_counts_the_same_searches(
    server: Server, protocol: Protocol, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if protocol == "grpc" and server.command[0] == sys.executable:
        pytest.skip("the embedded engine has no gRPC")
    monkeypatch.setattr(gate, "dataset", lambda *_: dataset(f"every{protocol}", queries=40))
    mix = dict.fromkeys(SLO.profile("smoke").mix, 1.0)
    slo = unhurried(short(mix=mix, rate_per_s=80, duration_s=6, min_samples=20, creations=4))
    where = gate.Server(server.url, KEY, f"127.0.0.1:{server.grpc_port}")
    report, _ = judged(where, slo, tmp_path, protocol)
    found = report.to_record()
    assert report.measured.recall["during the run"].overall >= SLO.recall.overall
    assert {name for name, operation in found.operations.items() if operation.errors} == set()
    assert set(found.operations) == {*mix, "create_collection"}
    assert found.operations["create_collection"].count == 4
    sent = sum(found.operations[name].count for name in ("search", "filtered_search", "hybrid_search"))
    # It counts those of the warm-up too, and of a round that was thrown away.
    assert sent <= found.server.searches <= 1.5 * sent * (1 + len(found.earlier_rounds))
    assert found.server.samples, "the server runs on this machine, so its cores and memory can be seen"
    assert found.server.after["segments_count"] >= 1
    assert report.verdict.word in ("pass", "void"), report.verdict
    with Qdrant(server.url, KEY) as client:
        assert [name for name in client.collections() if name.startswith("plinth_load_every")] == []


def test_grpc_is_refused_where_there_is_none(embedded: Callable[..., Server], tmp_path: Path) -> None:
    server = embedded()
    with pytest.raises(UserError, match="has no gRPC; leave --protocol out"):
        judged(gate.Server(server.url, KEY, "127.0.0.1:1"), short(), tmp_path, "grpc")
    with pytest.raises(UserError, match="has no gRPC address"):
        gate.Server(server.url, KEY).aim("grpc", EMBEDDINGS)
