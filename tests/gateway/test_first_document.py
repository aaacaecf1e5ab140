"""What the first document does with the gateway, line by line (S0)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from plinth.qdrant.search import mock_vector, point_id_for
from tests.conftest import KEY, Server
from tests.gateway.conftest import Gateway

SEGMENT = {"asset_id": "doc-123", "segment_id": "chunk-0"}


def ended(http: httpx.Client, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        job: dict[str, Any] = http.get(f"/jobs/{job_id}").raise_for_status().json()
        if job["status"] not in ("pending", "processing"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.1)


@pytest.mark.requirement("S0-04")
def test_a_mock_embedding_becomes_a_point(gateway: Gateway, qdrant: Server, organisation: str) -> None:
    with gateway.http(organisation) as http:
        answer = http.post("/vectors/mock", json=SEGMENT)
        assert answer.status_code == 202
        created = answer.json()
        assert created == {"job_id": created["job_id"], **SEGMENT}
        job = ended(http, created["job_id"])
        expected = point_id_for(organisation, "doc-123", "chunk-0", "mock", "v1")
        assert set(job) == {"id", "status", "stage", "progress", "result", "error", "created_at", "updated_at"}
        assert (job["status"], job["stage"], job["progress"], job["error"]) == ("completed", "completed", 100, None)
        result = {
            "point_id": expected,
            "collection": "embeddings",
            "vector_size": 384,
            "org_id": organisation,
            **SEGMENT,
        }
        assert {key: job["result"][key] for key in result} == result
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", job["result"]["completed_at"])
        # The same parameters are the same job.
        assert http.post("/vectors/mock", json=SEGMENT).json()["job_id"] == created["job_id"]
        hits = http.post(
            "/v1/collections/embeddings/search", json={"vector": mock_vector("doc-123", "chunk-0", 384)}
        ).json()["hits"]
        assert hits[0]["payload"]["asset_id"] == "doc-123"
        assert hits[0]["score"] == pytest.approx(1.0, abs=1e-5)
    direct = httpx.get(
        f"{qdrant.url}/collections/embeddings/points/{expected}", headers={"api-key": KEY}
    ).raise_for_status()
    payload = direct.json()["result"]["payload"]
    assert payload["org_id"] == organisation
    assert payload["model_ver"] == "v1"


def test_a_job_of_another_organisation_is_not_there(gateway: Gateway, organisation: str) -> None:
    with gateway.http(organisation) as http, gateway.http(f"{organisation}-2") as other:
        job_id = http.post("/vectors/mock", json=SEGMENT).json()["job_id"]
        for method, path in (("GET", f"/jobs/{job_id}"), ("DELETE", f"/jobs/{job_id}")):
            assert other.request(method, path).status_code == 404
        assert other.get("/jobs/no-uuid").status_code == 404
        ended(http, job_id)


def test_texts_are_embedded_and_found_by_text(gateway: Gateway, organisation: str) -> None:
    items = [
        {"id": "cat", "text": "A kitten sleeps on the warm windowsill", "payload": {"kind": "animal"}},
        {"id": "car", "text": "The engine of the old lorry needs new oil", "payload": {"kind": "machine"}},
    ]
    with gateway.http(organisation) as http:
        headers = {"idempotency-key": "first"}
        created = http.post("/v1/collections/embeddings/embed", json={"items": items}, headers=headers)
        assert created.status_code == 202, created.text
        assert ended(http, created.json()["job_id"])["status"] == "completed"
        other = http.post("/v1/collections/embeddings/embed", json={"items": items[:1]}, headers=headers)
        assert other.status_code == 409
        found = http.post("/search", json={"collection": "embeddings", "query": "a sleeping cat", "top_k": 1})
        assert [hit["id"] for hit in found.json()["hits"]] == ["cat"]
        found = http.post("/v1/collections/embeddings/search", json={"text": "repairing a truck", "top_k": 1})
        assert [hit["id"] for hit in found.json()["hits"]] == ["car"]
        assert http.get("/v1/jobs/dead").json() == {"jobs": []}


def test_the_pages_of_a_developer_are_there(gateway: Gateway) -> None:
    assert "swagger" in httpx.get(f"{gateway.url}/docs").text
    schema = httpx.get(f"{gateway.url}/openapi.json").json()
    assert {"/vectors/mock", "/jobs/{job_id}", "/readyz", "/search", "/v1/collections"} <= set(schema["paths"])


@pytest.mark.requirement("S0-03")
def test_the_documents_variables_set_the_same_things(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(provider={"name": "mock"})
    gateway.start(ENABLE_QDRANT="false", PROBE_CACHE_SEC="0", PROBE_TIMEOUT_MS="2000", VECTOR_SIZE="4")
    try:
        report = httpx.get(f"{gateway.url}/readyz").json()
        assert report["deps"]["qdrant"] == {"enabled": False, "skipped": True, "ok": None}
        with gateway.http("variables") as http:
            # Four values a vector: what texts become fits another collection now.
            assert http.post("/v1/collections/trades/search", json={"text": "x"}).status_code == 200
            assert http.post("/v1/collections/embeddings/search", json={"text": "x"}).status_code == 400
    finally:
        gateway.stop()


@pytest.mark.parametrize(
    "variables",
    [
        {"PROBE_RETRIES": "many"},
        pytest.param({"QDRANT_URL": "qdrant"}, marks=pytest.mark.requirement("S2-08")),
        {"WORKER_CONCURRENCY": "0"},
    ],
)
def test_a_variable_that_sets_nothing_is_refused_by_its_name(
    make_gateway: Callable[..., Gateway], variables: dict[str, str]
) -> None:
    gateway = make_gateway()
    with pytest.raises(AssertionError, match=next(iter(variables))):
        gateway.start(**variables)
