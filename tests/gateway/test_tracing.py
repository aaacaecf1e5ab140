"""Traces, from a request over its job to Qdrant, as a collector of OTLP gets them."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import grpc
import pytest

from plinth.gateway import trace_exporter
from plinth.gateway.config import QdrantServer, TracingConfig
from plinth.gateway.errors import GatewayError, collection_not_found, unavailable
from plinth.gateway.qdrant_connection import QdrantConnection
from plinth.gateway.tracing import Tracing, current_traceparent, tracing_of
from plinth.gateway.vector_store import VectorStore
from plinth.system.ports import free_port
from plinth.vectors.v1 import vectors_pb2 as pb
from plinth.vectors.v1 import vectors_pb2_grpc
from tests.answers import Answers, close, serve
from tests.gateway.collector import Collector, ReceivedSpan
from tests.gateway.conftest import Gateway, login

SERVER, CLIENT, CONSUMER = 2, 3, 5
REST_SEARCH = "POST /v1/collections/{collection}/search"
GRPC_SEARCH = "plinth.vectors.v1.VectorService/Search"
VECTOR = [1.0] + [0.0] * 383


def new_trace(flags: str = "01") -> tuple[str, dict[str, str]]:
    """A trace that a caller has begun, and the headers that name it."""
    trace_id = secrets.token_hex(16)
    return trace_id, {
        "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-{flags}",
        "tracestate": "vendor=secret-state",
    }


def named(spans: list[ReceivedSpan], name: str) -> ReceivedSpan:
    (span,) = [span for span in spans if span.name == name]
    return span


def test_one_trace_goes_from_a_request_over_its_job_to_qdrant(
    gateway: Gateway, collector: Collector, organisation: str
) -> None:
    trace_id, headers = new_trace()
    with gateway.http(organisation) as http:
        items = [{"id": "1", "text": "a kitten sleeps", "payload": {}}]
        answer = http.post("/v1/collections/embeddings/embed", json={"items": items}, headers=headers)
    job_id = answer.raise_for_status().json()["job_id"]
    embed = "POST /v1/collections/{collection}/embed"
    spans = collector.trace(trace_id, embed, "job embed", "qdrant upsert")
    request = named(spans, embed)
    job, write = named(spans, "job embed"), named(spans, "qdrant upsert")
    assert (request.kind, job.kind, write.kind) == (SERVER, CONSUMER, CLIENT)
    assert request.parent_id == headers["traceparent"].split("-")[2]
    assert (job.parent_id, write.parent_id) == (request.span_id, job.span_id)
    assert (request.service, job.service) == ("plinth-gateway-server", "plinth-gateway-worker")
    assert (job.attributes["plinth.job_id"], job.attributes["plinth.job_outcome"]) == (job_id, "completed")
    assert request.attributes["plinth.request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_request_of_either_protocol_goes_on_with_the_trace_of_its_caller(
    gateway: Gateway, collector: Collector, organisation: str, protocol: str
) -> None:
    trace_id, headers = new_trace()
    search(gateway, protocol, organisation, headers, collection="embeddings")
    spans = collector.trace(trace_id, REST_SEARCH if protocol == "rest" else GRPC_SEARCH, "qdrant query")
    request, query = spans[-1], named(spans, "qdrant query")
    assert (request.kind, query.parent_id) == (SERVER, request.span_id)
    assert query.attributes["db.collection.name"] == "embeddings"
    status = "http.response.status_code" if protocol == "rest" else "rpc.response.status_code"
    assert request.attributes[status] == (200 if protocol == "rest" else "OK")


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_what_a_caller_does_wrong_is_no_failed_span(
    gateway: Gateway, collector: Collector, organisation: str, protocol: str
) -> None:
    trace_id, headers = new_trace()
    with pytest.raises(Exception, match=r"404|NOT_FOUND"):
        search(gateway, protocol, organisation, headers, collection="no-such")
    spans = collector.trace(trace_id, REST_SEARCH if protocol == "rest" else GRPC_SEARCH)
    assert not any(span.failed for span in spans)


def test_no_id_text_filter_or_token_of_a_caller_is_in_a_span(
    gateway: Gateway, collector: Collector, organisation: str
) -> None:
    secrets_sent = [f"sent-{secrets.token_hex(6)}" for _ in range(6)]
    given_id, text, payload, matched, query, unknown = secrets_sent
    trace_id, headers = new_trace()
    with gateway.http(organisation) as http:
        http.headers.update(headers)
        point = {"id": given_id, "vector": VECTOR, "payload": {"note": payload}}
        http.put("/v1/collections/embeddings/points", json={"points": [point]}).raise_for_status()
        http.get(f"/v1/collections/embeddings/points/{given_id}").raise_for_status()
        body = {"text": text, "filter": {"match": {"note": matched}}}
        http.post("/v1/collections/embeddings/search", json=body).raise_for_status()
        http.post(f"/v1/collections/embeddings/search?q={query}", json={"vector": [1.0]})
        http.get(f"/{unknown}")
        token = http.headers["authorization"].removeprefix("Bearer ")
    with pytest.raises(grpc.RpcError):
        search(gateway, "grpc", organisation, headers, preset=query)
    assert len(collector.trace(trace_id, "GET none", GRPC_SEARCH)) >= 6
    received = b"".join(collector.bodies)
    for sent in (*secrets_sent, "secret-state", token, *token.split(".")):
        assert sent.encode() not in received


def test_the_callers_own_decision_holds(gateway: Gateway, collector: Collector, organisation: str) -> None:
    unsampled, headers = new_trace("00")
    search(gateway, "rest", organisation, headers)
    sampled, headers = new_trace()
    search(gateway, "rest", organisation, headers)
    collector.trace(sampled, REST_SEARCH)
    assert not [span for span in collector.spans if span.trace_id == unsampled]


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "x",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"ff-{'1' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        "0" * 9000,
    ],
)
def test_a_traceparent_that_names_no_trace_begins_none_of_the_callers(
    gateway: Gateway, organisation: str, traceparent: str
) -> None:
    search(gateway, "rest", organisation, {"traceparent": traceparent})


def test_a_collector_that_is_away_costs_spans_and_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_exporter, "EXPORT_S", 0.1)
    tracing = Tracing(TracingConfig(endpoint=f"http://127.0.0.1:{free_port()}", sample_ratio=1.0), "server")
    for _ in range(3):
        with tracing.server_span("GET x", None, {}):
            pass
    tracing.close()
    assert tracing.failures == 3


def test_one_that_refuses_is_counted_too() -> None:
    with Collector() as collector:
        tracing = Tracing(TracingConfig(endpoint=collector.url, sample_ratio=1.0), "server")
        with tracing.server_span("GET x", None, {}):
            pass
        tracing.close()
        assert (tracing.failures, collector.refused, collector.spans) == (1, 1, [])


def test_without_a_collector_there_are_no_traces() -> None:
    assert tracing_of(None, "server") is None
    assert current_traceparent() is None


def test_qdrant_is_told_of_the_trace(tmp_path: Any) -> None:
    """Which it writes into its audit log as the tracing id."""
    traceparents: list[str | None] = []

    class Qdrant(Answers):
        def do_GET(self) -> None:
            traceparents.append(self.headers["traceparent"])
            self.reply(200, {"result": {"collections": []}})

    async def ask(url: str, tracing: Tracing | None) -> None:
        store = VectorStore(QdrantConnection(QdrantServer(url=url)), tracing)
        await store.ready(20)
        await store.close()

    headers = tmp_path / "headers"
    headers.write_text(f"Authorization=Bearer {Collector.TOKEN}")
    server = serve(Qdrant)
    with Collector() as collector:
        tracing = Tracing(TracingConfig(endpoint=collector.url, sample_ratio=1.0, headers_file=headers), "server")
        for each in (tracing, None):
            asyncio.run(ask(f"http://127.0.0.1:{server.server_address[1]}", each))
        tracing.close()
        (span,) = collector.spans
    close(server)
    traced, untraced = traceparents
    assert traced is not None
    assert traced.startswith(f"00-{span.trace_id}-{span.span_id}-")
    assert untraced is None


@pytest.mark.parametrize(("error", "failed"), [(unavailable(), True), (collection_not_found(), False)])
def test_a_span_fails_by_what_is_not_the_callers_fault(error: GatewayError, failed: bool, tmp_path: Any) -> None:
    with Collector() as collector:
        headers = tmp_path / "headers"
        headers.write_text(f"Authorization=Bearer {Collector.TOKEN}")
        config = TracingConfig(endpoint=f"{collector.url}/", sample_ratio=1.0, headers_file=headers)
        tracing = Tracing(config, "server")
        with pytest.raises(GatewayError), tracing.qdrant_span("query", "c"):
            raise error
        tracing.close()
        assert [span.failed for span in collector.spans] == [failed]


def search(gateway: Gateway, protocol: str, organisation: str, headers: dict[str, str], **fields: Any) -> None:
    """A search that no cache answers."""
    fields = {"collection": "embeddings", **fields}
    vector = [time.time() % 1, *VECTOR[1:]]
    if protocol == "rest":
        with gateway.http(organisation) as http:
            name = fields.pop("collection")
            answer = http.post(f"/v1/collections/{name}/search", json={"vector": vector, **fields}, headers=headers)
            answer.raise_for_status()
        return
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        metadata = [*login(organisation).items(), *headers.items()]
        stub = vectors_pb2_grpc.VectorServiceStub(channel)
        stub.Search(pb.SearchRequest(vector=vector, **fields), metadata=metadata, timeout=30)
