"""What only the embedded engine promises: it survives a kill, answers while it builds, says what it is."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from plinth.qdrant.client import Qdrant, QdrantError
from tests.conftest import KEY, Server

SIZE = 32
KILLS = 24


def body(**values: Any) -> dict[str, Any]:
    return {"vectors": {"size": SIZE, "distance": "Cosine"}, **values}


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)


def upsert(
    client: Qdrant, name: str, first: int, vectors: np.ndarray, tenant: Callable[[int], str] = lambda i: f"t{i % 3}"
) -> None:
    for start in range(0, len(vectors), 500):
        points = [
            {"id": first + start + i, "vector": row.tolist(), "payload": {"t": tenant(start + i)}}
            for i, row in enumerate(vectors[start : start + 500])
        ]
        client.call("PUT", f"/collections/{name}/points?wait=true", {"points": points})


def ids(client: Qdrant, name: str) -> set[int]:
    found: set[int] = set()
    offset = None
    while True:
        body = {"limit": 10000, "with_payload": False, "offset": offset}
        page = client.call("POST", f"/collections/{name}/points/scroll", body)
        found |= {point["id"] for point in page["points"]}
        offset = page["next_page_offset"]
        if offset is None:
            return found


def wait_green(client: Qdrant, name: str, seconds: float = 90) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while True:
        info = client.collection(name)
        assert info is not None
        if info["status"] == "green":
            return info
        assert time.monotonic() < end, info
        time.sleep(0.1)


def kill(server: Server, engines_too: bool = True) -> None:
    """SIGKILL to the front; what else it started is killed as well, or must end by itself."""
    assert server.process is not None
    others = psutil.Process(server.process.pid).children(recursive=True)
    for other in others if engines_too else ():
        other.kill()
    server.stop(signal.SIGKILL)
    psutil.wait_procs(others, timeout=15)
    assert not [other for other in others if other.is_running() and other.status() != psutil.STATUS_ZOMBIE]


def test_no_acknowledged_write_is_lost_and_no_deleted_point_returns_over_random_kills(
    embedded: Callable[..., Server],
) -> None:
    server, chance = embedded(), random.Random(11)
    with Qdrant(server.url, KEY) as client:
        client.call("PUT", "/collections/c", body(optimizers_config={"indexing_threshold": 20}))
    expected: set[int] = set()
    following = 0
    for _ in range(KILLS):
        unsure: set[int] = set()
        timer = threading.Timer(chance.uniform(0.05, 0.9), kill, [server, chance.random() < 0.7])
        timer.start()
        with Qdrant(server.url, KEY, timeout_s=5) as client:
            try:
                while True:
                    if chance.random() < 0.3 and expected:
                        gone = set(chance.sample(sorted(expected), min(20, len(expected))))
                        unsure = gone
                        client.call("POST", "/collections/c/points/delete?wait=true", {"points": sorted(gone)})
                        expected -= gone
                    else:
                        new = set(range(following, following + 40))
                        following += 40
                        unsure = new
                        upsert(client, "c", min(new), rows(40, following))
                        expected |= new
                    unsure = set()
            except QdrantError:
                timer.join()
        server.start()
        with Qdrant(server.url, KEY) as client:
            found = ids(client, "c")
        assert expected - found - unsure == set(), "acknowledged writes are missing"
        assert found - expected - unsure == set(), "deleted points came back"
        expected = found


def test_what_was_acknowledged_of_collections_aliases_and_indexes_survives_a_kill(
    embedded: Callable[..., Server],
) -> None:
    server = embedded()
    with Qdrant(server.url, KEY) as client:
        client.call("PUT", "/collections/c", body(hnsw_config={"m": 0, "payload_m": 16}))
        client.call(
            "PUT", "/collections/c/index", {"field_name": "t", "field_schema": {"type": "keyword", "is_tenant": True}}
        )
        client.call("PUT", "/collections/gone", body())
        client.call("DELETE", "/collections/gone")
        client.call(
            "POST", "/collections/aliases", {"actions": [{"create_alias": {"alias_name": "a", "collection_name": "c"}}]}
        )
        client.call("PATCH", "/collections/c", {"hnsw_config": {"ef_construct": 77}})
    kill(server)
    server.start()
    with Qdrant(server.url, KEY) as client:
        info = client.collection("a")
        assert info is not None
        assert client.collections() == ["c"]
        assert info["config"]["hnsw_config"]["ef_construct"] == 77
        assert info["payload_schema"]["t"]["params"]["is_tenant"] is True


def test_an_engine_process_that_is_killed_starts_again_with_its_data(embedded: Callable[..., Server]) -> None:
    server = embedded()
    with Qdrant(server.url, KEY) as client:
        client.call("PUT", "/collections/c", body())
        upsert(client, "c", 0, rows(100))
        assert server.process is not None
        (engine,) = psutil.Process(server.process.pid).children()
        os.kill(engine.pid, signal.SIGKILL)
        assert len(ids(client, "c")) == 100
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_probes_searches_and_writes_go_on_while_the_graph_is_built(embedded: Callable[..., Server]) -> None:
    server = embedded()
    with Qdrant(server.url, KEY) as client:
        client.call("PUT", "/collections/c", body(optimizers_config={"indexing_threshold": 500}))
        vectors = rows(20000)
        upsert(client, "c", 0, vectors)
        during = {"searches": 0, "probes": 0, "writes": 0}
        end = time.monotonic() + 90
        while time.monotonic() < end:
            info = client.collection("c")
            assert info is not None
            if info["status"] == "green" and during["searches"]:
                break
            found = client.call("POST", "/collections/c/points/query", {"query": vectors[5].tolist(), "limit": 1})
            assert found["points"][0]["id"] == 5
            assert httpx.get(f"{server.url}/readyz").status_code == 200
            upsert(client, "c", 50000 + during["writes"], rows(1, during["writes"]))
            for kind in during:
                during[kind] += 1
        info = wait_green(client, "c")
        assert min(during.values()) >= 3
        assert info["indexed_vectors_count"] >= 20000
        assert len(ids(client, "c")) == 20000 + during["writes"]


def recall(client: Qdrant, name: str, queries: np.ndarray, condition: dict[str, Any]) -> float:
    """recall@10 against the engine's own exact search."""

    def search(query: np.ndarray, **params: Any) -> set[int]:
        wanted = {"query": query.tolist(), "limit": 10, "filter": condition, "params": params}
        return {point["id"] for point in client.call("POST", f"/collections/{name}/points/query", wanted)["points"]}

    quantized = {"quantization": {"rescore": True, "oversampling": 2.0}, "hnsw_ef": 128}
    return float(np.mean([len(search(q, **quantized) & search(q, exact=True)) / 10 for q in queries]))


def test_a_tenant_index_that_comes_after_the_points_still_links_every_tenant(embedded: Callable[..., Server]) -> None:
    server = embedded()
    with Qdrant(server.url, KEY) as client:
        client.call(
            "PUT",
            "/collections/c",
            body(
                hnsw_config={"m": 0, "payload_m": 16, "full_scan_threshold": 10},
                optimizers_config={"indexing_threshold": 100},
                quantization_config={"scalar": {"type": "int8", "quantile": 0.99}},
            ),
        )
        upsert(client, "c", 0, rows(6000), lambda i: "big" if i % 4 else f"small{i % 8}")
        wait_green(client, "c")
        client.call(
            "PUT", "/collections/c/index", {"field_name": "t", "field_schema": {"type": "keyword", "is_tenant": True}}
        )
        wait_green(client, "c")
        queries = rows(30, seed=5)
        for tenant in ("big", "small0"):
            assert recall(client, "c", queries, {"must": [{"key": "t", "match": {"value": tenant}}]}) >= 0.95


def test_a_collection_without_a_global_graph_is_not_searched_outside_a_tenant(embedded: Callable[..., Server]) -> None:
    server = embedded()
    with Qdrant(server.url, KEY) as client:
        client.call("PUT", "/collections/c", body(hnsw_config={"m": 0, "payload_m": 16}))
        client.call(
            "PUT", "/collections/c/index", {"field_name": "t", "field_schema": {"type": "keyword", "is_tenant": True}}
        )
        upsert(client, "c", 0, rows(10))
        search = {"query": [0.5] * SIZE, "limit": 3}
        tenant = {"key": "t", "match": {"value": "t1"}}
        for condition in (
            None,
            {"should": [tenant]},
            {"must": [{"key": "u", "match": {"value": "t1"}}]},
            {"must_not": [tenant]},
        ):
            with pytest.raises(QdrantError, match="links within a tenant only"):
                client.call("POST", "/collections/c/points/query", {**search, "filter": condition})
        with pytest.raises(QdrantError, match="links within a tenant only"):
            client.call(
                "POST", "/collections/c/points/query", {"prefetch": [search], "query": {"fusion": "rrf"}, "limit": 3}
            )
        for allowed in (
            {"filter": {"must": [tenant]}},
            {"filter": {"must": [{"key": "t", "match": {"any": ["t0", "t1"]}}]}},
            {"filter": {"must": [{"must": [tenant]}]}},
            {"params": {"exact": True}},
        ):
            assert client.call("POST", "/collections/c/points/query", {**search, **allowed})["points"]


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "words"),
    [
        (
            "PUT",
            "/collections/x",
            {"vectors": {"size": 2, "distance": "Dot"}, "shard_number": 3},
            400,
            "shard_number must be 1",
        ),
        (
            "PUT",
            "/collections/x",
            {"vectors": {"size": 2, "distance": "Dot"}, "sharding_method": "custom"},
            501,
            "custom sharding",
        ),
        ("PUT", "/collections/c/shards", {"shard_key": "a"}, 501, "PUT /collections/c/shards"),
        ("POST", "/cluster/recover", {}, 501, "POST /cluster/recover"),
        ("POST", "/collections/c/points/search/matrix/pairs", {}, 501, "matrix"),
        ("POST", "/collections/c/points/query", {"query": {"text": "hi", "model": "m"}}, 501, "inference"),
    ],
)
def test_what_it_cannot_do_is_said_with_what_can(
    embedded: Callable[..., Server], method: str, path: str, content: dict[str, Any], status: int, words: str
) -> None:
    server = embedded()
    headers = {"api-key": KEY}
    httpx.put(f"{server.url}/collections/c", headers=headers, json=body())
    answer = httpx.request(method, f"{server.url}{path}", headers=headers, json=content)
    assert answer.status_code == status
    sentence = answer.json()["status"]["error"]
    assert words in sentence
    assert "embedded engine" in sentence


def test_it_says_what_it_is(embedded: Callable[..., Server]) -> None:
    server = embedded()
    assert "embedded" in httpx.get(f"{server.url}/").json()["title"]
    assert 'name="plinth-embedded"' in httpx.get(f"{server.url}/metrics", headers={"api-key": KEY}).text


def test_strict_mode_is_kept(embedded: Callable[..., Server]) -> None:
    server = embedded()
    with Qdrant(server.url, KEY) as client:
        strict = {
            "enabled": True,
            "max_query_limit": 5,
            "unindexed_filtering_retrieve": False,
            "upsert_max_batchsize": 3,
        }
        client.call("PUT", "/collections/c", body(strict_mode_config=strict))
        with pytest.raises(QdrantError, match="Upsert limit exceeded"):
            upsert(client, "c", 0, rows(4))
        with pytest.raises(QdrantError, match="6 > 5 for limit"):
            client.call("POST", "/collections/c/points/query", {"query": [0.1] * SIZE, "limit": 6})
        with pytest.raises(QdrantError, match="Index required but not found"):
            client.call(
                "POST", "/collections/c/points/scroll", {"filter": {"must": [{"key": "x", "match": {"value": 1}}]}}
            )


def test_a_snapshot_of_a_real_server_is_refused(embedded: Callable[..., Server]) -> None:
    server = embedded()
    with Qdrant(server.url, KEY) as client:
        client.call("PUT", "/collections/c", body())
        foreign = Path(server.directory) / "snapshots" / "foreign.snapshot"
        foreign.parent.mkdir(exist_ok=True)
        foreign.write_bytes(b"not a tar of ours")
        with pytest.raises(QdrantError, match="reads its own format only"):
            client.call("PUT", "/collections/c/snapshots/recover", {"location": f"file://{foreign}"})


def test_a_term_signal_ends_it_with_everything_flushed(embedded: Callable[..., Server]) -> None:
    server = embedded()
    with Qdrant(server.url, KEY) as client:
        client.call("PUT", "/collections/c", body())
        upsert(client, "c", 0, rows(50))
    assert server.process is not None
    others = psutil.Process(server.process.pid).children(recursive=True)
    assert server.stop() == 0
    assert not [other for other in others if other.is_running() and other.status() != psutil.STATUS_ZOMBIE]
    server.start()
    with Qdrant(server.url, KEY) as client:
        assert len(ids(client, "c")) == 50


def test_a_missing_config_is_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "plinth.embedded", "--config-path", str(tmp_path / "no.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "does not exist; name Qdrant's config file" in done.stderr
    assert "Traceback" not in done.stderr
