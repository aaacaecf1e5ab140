"""Aliases, changes, keys, metrics and snapshots, through the official client. The same tests pass on both."""

from __future__ import annotations

import httpx
import pytest
from qdrant_client import QdrantClient, models

from tests.conftest import KEY, READ_ONLY_KEY, Server
from tests.contract.points import SIZE, fill, refused, within

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")


def test_aliases_switch_at_once_and_lead_everywhere(client: QdrantClient, name: str) -> None:
    fill(client, name)
    alias = f"alias_of_{name}"
    create = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=alias))
    client.update_collection_aliases([create])
    assert client.count(alias).count == 30
    assert client.collection_exists(alias)
    assert client.get_collection(alias).points_count == 30
    assert alias not in {collection.name for collection in client.get_collections().collections}
    with refused(400):
        client.create_collection(alias, vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
    client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))])
    with refused(404):
        client.count(alias)


def test_a_patch_is_read_back_and_what_cannot_change_stays(client: QdrantClient, name: str) -> None:
    client.update_collection(
        name,
        hnsw_config=models.HnswConfigDiff(ef_construct=64, payload_m=8),
        optimizers_config=models.OptimizersConfigDiff(deleted_threshold=0.3),
        quantization_config=models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
        ),
    )
    config = client.get_collection(name).config
    assert (config.hnsw_config.m, config.hnsw_config.ef_construct, config.hnsw_config.payload_m) == (16, 64, 8)
    assert config.optimizer_config.deleted_threshold == pytest.approx(0.3)
    assert config.quantization_config is not None
    client.update_collection(name, quantization_config=models.Disabled.DISABLED)
    after = client.get_collection(name).config
    assert after.quantization_config is None
    assert after.params.vectors.size == SIZE
    schema = client.get_collection(name).payload_schema["t"]
    assert (schema.data_type, schema.params.is_tenant) == (models.PayloadSchemaType.KEYWORD, True)


@pytest.mark.requirement("S4-09")
@pytest.mark.requirement("S4-02")
def test_errors_have_qdrants_codes(client: QdrantClient, name: str, server: Server) -> None:
    vector = models.VectorParams(size=SIZE, distance=models.Distance.COSINE)
    with refused(409):
        client.create_collection(name, vectors_config=vector)
    with refused(404):
        client.get_collection("not_there")
    with refused(404):
        client.query_points("not_there", query=[1.0] * SIZE)
    with refused(400):
        client.query_points(name, query=[1.0])
    assert client.delete_collection("not_there") is False
    headers = {"api-key": KEY}
    points = f"{server.url}/collections/{name}/points"
    assert httpx.post(f"{points}/query", headers=headers, content=b"{not json").status_code == 400
    assert httpx.post(f"{points}/query", headers=headers, json={"query": [1.0] * SIZE, "limit": 0}).status_code == 422
    assert (
        httpx.put(points, headers=headers, json={"points": [{"id": "doc-1", "vector": [0.1] * SIZE}]}).status_code
        == 400
    )
    assert httpx.put(points, headers=headers, json={"points": [{"id": -1, "vector": [0.1] * SIZE}]}).status_code == 400
    answer = httpx.get(f"{server.url}/collections/not_there", headers=headers).json()
    assert "not_there" in answer["status"]["error"]


@pytest.mark.requirement("S1-10")
def test_probes_need_no_key_and_everything_else_does(server: Server, name: str) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/"):
        assert httpx.get(f"{server.url}{path}").status_code == 200
    for path in ("/collections", "/metrics", f"/collections/{name}"):
        assert httpx.get(f"{server.url}{path}").status_code == 401
        assert httpx.get(f"{server.url}{path}", headers={"api-key": "wrong"}).status_code == 401
        assert httpx.get(f"{server.url}{path}", headers={"api-key": READ_ONLY_KEY}).status_code == 200
        assert httpx.get(f"{server.url}{path}", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_the_read_only_key_reads_and_writes_nothing(server: Server, name: str, client: QdrantClient) -> None:
    fill(client, name, 3)
    headers = {"api-key": READ_ONLY_KEY}
    base = f"{server.url}/collections/{name}"
    body = {"query": [0.1] * SIZE, "limit": 2}
    assert len(httpx.post(f"{base}/points/query", headers=headers, json=body).json()["result"]["points"]) == 2
    assert httpx.post(f"{base}/points", headers=headers, json={"ids": [1]}).json()["result"][0]["id"] == 1
    assert (
        httpx.put(f"{base}/points", headers=headers, json={"points": [{"id": 9, "vector": [0.1] * SIZE}]}).status_code
        == 403
    )
    assert httpx.post(f"{base}/points/delete", headers=headers, json={"points": [1]}).status_code == 403
    assert httpx.delete(base, headers=headers).status_code == 403
    assert httpx.patch(base, headers=headers, json={}).status_code == 403
    assert client.count(name).count == 3


@pytest.mark.requirement("S1-09")
def test_metrics_have_qdrants_names(server: Server, client: QdrantClient, name: str) -> None:
    rows = fill(client, name)
    client.query_points(name, query=rows[0])
    page = httpx.get(f"{server.url}/metrics", headers={"api-key": READ_ONLY_KEY}).text
    families = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    assert {
        "app_info",
        "app_status_recovery_mode",
        "cluster_enabled",
        "collections_total",
        "collections_vector_total",
        "collection_points",
        "rest_responses_total",
        "rest_responses_duration_seconds",
        "process_open_fds",
        "process_open_mmaps",
    } <= families
    route = 'endpoint="/collections/{collection_name}/points/query"'
    edges = [
        line
        for line in page.splitlines()
        if line.startswith("rest_responses_duration_seconds_bucket") and route in line
    ]
    found = {line.partition('le="')[2].partition('"')[0] for line in edges}
    assert found == {"0.001", "0.005", "0.01", "0.02", "0.05", "0.1", "0.5", "1", "5", "10", "50", "+Inf"}


def test_a_snapshot_brings_back_what_was(client: QdrantClient, name: str, server: Server) -> None:
    rows = fill(client, name)
    snapshot = client.create_snapshot(name)
    assert snapshot is not None
    assert snapshot.checksum
    client.delete(name, within("t0"), wait=True)
    location = f"file://{server.directory}/snapshots/{name}/{snapshot.name}"
    client.recover_snapshot(name, location, checksum=snapshot.checksum, wait=True)
    assert client.count(name).count == 30
    assert client.query_points(name, query=rows[3], limit=1).points[0].id == 3
    assert [listed.name for listed in client.list_snapshots(name)] == [snapshot.name]
    with refused(400):
        client.recover_snapshot(name, location, checksum="0" * 64)
    client.delete_snapshot(name, snapshot.name)
    assert client.list_snapshots(name) == []


def test_a_snapshot_from_elsewhere_on_the_disk_is_refused(client: QdrantClient, name: str) -> None:
    with refused(403):
        client.recover_snapshot(name, "file:///etc/passwd")
