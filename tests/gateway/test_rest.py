"""The gateway over REST: what stands before the core, and what is refused."""

from __future__ import annotations

import httpx

from tests.gateway.conftest import Gateway, login


def test_a_collection_is_made_filled_searched_and_dropped(gateway: Gateway, organisation: str) -> None:
    with gateway.http(organisation) as http:
        body = {"name": "documents", "dimension": 4, "distance": "Cosine"}
        assert http.post("/v1/collections", json=body).status_code == 201
        points = [
            {"id": f"doc-{n}", "vector": [1.0, n / 10, 0, 0], "payload": {"n": n, "source": "web"}} for n in range(5)
        ]
        written = http.put("/v1/collections/documents/points", json={"points": points})
        assert written.json() == {"count": 5}
        hits = http.post(
            "/v1/collections/documents/search",
            json={"vector": [1, 0, 0, 0], "top_k": 2, "filter": {"range": {"n": {"gte": 1}}}},
        ).json()["hits"]
        assert [hit["id"] for hit in hits] == ["doc-1", "doc-2"]
        assert hits[0]["payload"] == {"n": 1, "source": "web", "org_id": organisation}
        assert http.get("/v1/collections/documents").json()["points"] == 5
        assert http.delete("/v1/collections/documents").status_code == 204
        gone = http.post("/v1/collections/documents/search", json={"vector": [1, 0, 0, 0]})
        assert gone.status_code == 404
        assert gone.json()["detail"] == "collection not found"


def test_readyz_speaks_the_first_documents_words(gateway: Gateway) -> None:
    report = httpx.get(f"{gateway.url}/readyz").json()
    assert (report["service"], report["ready"], report["summary"]) == ("api", True, "ok")
    assert set(report["deps"]) == {"pg", "redis", "qdrant"}
    assert all(dep["enabled"] and dep["ok"] and dep["latency_ms"] >= 0 for dep in report["deps"].values())


def test_nobody_gets_in_without_a_token(gateway: Gateway) -> None:
    answer = httpx.get(f"{gateway.url}/v1/collections")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{gateway.url}/v1/collections", headers=login("acme")).status_code == 200
