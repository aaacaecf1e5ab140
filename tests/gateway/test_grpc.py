"""The gateway over gRPC: what the contract of both protocols does not have."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2, struct_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from plinth.gateway.grpc_api.methods import METHODS, SERVICE
from plinth.gateway.tokens import issue_token
from plinth.vectors.v1 import vectors_pb2 as pb
from plinth.vectors.v1 import vectors_pb2_grpc
from tests.gateway.clients import CHANNEL_OPTIONS, ApiError, GrpcClient, api_error, grpc_errors, point_message
from tests.gateway.conftest import METRICS_TOKEN, Gateway, SilentServer, login

SEARCH = f"/{SERVICE.full_name}/Search"
MIB = 2**20


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[GrpcClient]:
    """A client whose organisation has a collection `documents` of four dimensions."""
    client = GrpcClient(gateway, login("org-of-grpc"))
    client.create_collection("documents", 4, "Cosine")
    yield client
    client.delete_collection("documents")
    client.close()


def refused(operation: Callable[[], Any]) -> ApiError:
    with pytest.raises(ApiError) as caught, grpc_errors():
        operation()
    return caught.value


def audited(gateway: Gateway, request_id: str) -> dict[str, Any]:
    """The audit line of a request, which may come after its answer."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = gateway.audit.read_text().splitlines() if gateway.audit.exists() else []
        for line in map(json.loads, lines):
            if line["request_id"] == request_id:
                found: dict[str, Any] = line
                return found
        time.sleep(0.02)
    raise AssertionError(f"no audit line for {request_id}")


def test_every_method_of_the_service_is_served() -> None:
    assert set(METHODS) == {method.name for method in SERVICE.methods}
    assert all(
        method.request.DESCRIPTOR is SERVICE.methods_by_name[name].input_type for name, method in METHODS.items()
    )


def test_the_request_id_is_the_callers_or_a_new_one_and_comes_back(client: GrpcClient) -> None:
    def returned(*metadata: tuple[str, str]) -> Any:
        request = pb.ListCollectionsRequest()
        _, call = client.stub.ListCollections.with_call(request, metadata=(*client.metadata, *metadata))
        return dict(call.trailing_metadata())["x-request-id"]

    assert returned(("x-request-id", "mine-1")) == "mine-1"
    assert len(returned()) == 36
    assert returned(("x-request-id", "two words")) != "two words"
    error = refused(lambda: client.search("documents", vector=[]))
    assert error.request_id is not None


def other_key() -> str:
    return issue_token("another-key-of-32-bytes-and-some-more", "acme", "user")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"authorization": "Bearer not.a.token"},
        {"authorization": f"Bearer {other_key()}"},
        {"authorization": "Bearer " + "x" * 9000},
        {"authorization-bin": b"Bearer x"},
    ],
)
def test_a_token_that_proves_nobody_is_refused_and_audited(
    gateway: Gateway, organisation: str, metadata: dict[str, Any]
) -> None:
    with grpc.insecure_channel(gateway.grpc_address, options=CHANNEL_OPTIONS) as channel:
        stub = vectors_pb2_grpc.VectorServiceStub(channel)
        sent = (*metadata.items(), ("x-request-id", organisation))
        error = refused(lambda: stub.Search(pb.SearchRequest(collection="documents"), metadata=sent))
    assert (error.kind, error.request_id) == ("UNAUTHENTICATED", organisation)
    line = audited(gateway, organisation)
    assert [line[key] for key in ("operation", "org_id", "outcome", "protocol")] == [
        "search",
        None,
        "UNAUTHENTICATED",
        "grpc",
    ]


def test_of_two_tokens_the_first_counts(client: GrpcClient) -> None:
    other = login("another-org")["authorization"]
    request = pb.ListCollectionsRequest()
    both = (*client.metadata, ("authorization", other))
    assert "documents" in client.stub.ListCollections(request, metadata=both).names


def encoded(number: int, content: bytes) -> bytes:
    """A field of bytes, of a number below 16, in protocol buffers' own form."""
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def deep(levels: int) -> bytes:
    """A payload of this many levels, encoded without a message's own bounds."""
    payload = b""
    for _ in range(levels):
        payload = encoded(1, encoded(1, b"a") + encoded(2, encoded(5, payload)))
    return payload


VECTOR = pb.Point(id="a", vector=[1, 0, 0, 0]).SerializeToString()
MALFORMED: dict[str, tuple[str, bytes, str]] = {
    "bytes that are no message": ("Search", b"\xff\xff\xff", "message"),
    "a text that is not UTF-8": ("Search", encoded(1, b"\xff"), "message"),
    "a field of a later version": (
        "Search",
        pb.SearchRequest(collection="documents", vector=[1, 0, 0, 0]).SerializeToString() + encoded(15, b"later"),
        "message",
    ),
    "a condition of a later version": (
        "BatchDelete",
        encoded(1, b"documents") + encoded(3, encoded(14, b"later")),
        "filter",
    ),
    "a part of a point of a later version": (
        "BatchUpsert",
        encoded(1, b"documents") + encoded(2, VECTOR + encoded(9, b"later")),
        "points.0",
    ),
    "a payload of a thousand levels": (
        "Upsert",
        encoded(1, b"documents") + encoded(2, VECTOR + encoded(3, deep(1000))),
        "message",
    ),
    "a payload of 26 levels": (
        "Upsert",
        encoded(1, b"documents") + encoded(2, VECTOR + encoded(3, deep(25))),
        "point.payload",
    ),
    "a value without a kind": (
        "Upsert",
        encoded(1, b"documents") + encoded(2, VECTOR + encoded(3, encoded(1, encoded(1, b"a") + encoded(2, b"")))),
        "point.payload",
    ),
    "a match without a value": (
        "BatchDelete",
        encoded(1, b"documents") + encoded(3, encoded(1, encoded(1, b"a") + encoded(2, b""))),
        "filter.match.a",
    ),
    "no point": ("Upsert", encoded(1, b"documents"), "point"),
}


@pytest.mark.parametrize(("method", "content", "field"), MALFORMED.values(), ids=MALFORMED)
def test_a_message_that_is_not_understood_is_refused_and_audited(
    client: GrpcClient, gateway: Gateway, method: str, content: bytes, field: str
) -> None:
    call = client.channel.unary_unary(f"/{SERVICE.full_name}/{method}")
    error = refused(lambda: call(content, metadata=client.metadata))
    assert (error.kind, error.fields) == ("INVALID_ARGUMENT", (field,))
    assert error.request_id is not None
    assert audited(gateway, error.request_id)["outcome"] == "INVALID_ARGUMENT"


def test_the_deepest_payload_comes_back(client: GrpcClient) -> None:
    content = encoded(1, b"documents") + encoded(2, VECTOR + encoded(3, deep(23)))
    client.channel.unary_unary(f"/{SERVICE.full_name}/Upsert")(content, metadata=client.metadata)
    payload = client.get("documents", ["a"])[0]["payload"]
    for _ in range(23):
        payload = payload["a"]
    assert payload == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39, -1e39])
def test_a_vector_has_finite_values(client: GrpcClient, value: float) -> None:
    error = refused(lambda: client.upsert("documents", {"id": "a", "vector": [value, 0, 0, 0]}))
    assert (error.kind, error.fields) == ("INVALID_ARGUMENT", ("point.vector",))
    assert refused(lambda: client.search("documents", vector=[value, 0, 0, 0])).fields == ("vector",)
    batch = [{"vector": [1, 0, 0, 0]}, {"vector": [value, 0, 0, 0]}]
    assert refused(lambda: client.batch_search("documents", batch)).fields == ("searches.1.vector",)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_payload_has_finite_numbers(client: GrpcClient, value: float) -> None:
    point = point_message({"id": "a", "vector": [1, 0, 0, 0]})
    point.payload.fields["deep"].list_value.values.append(struct_pb2.Value(number_value=value))
    error = refused(lambda: client.call("Upsert", pb.UpsertRequest(collection="documents", point=point)))
    assert (error.kind, error.fields) == ("INVALID_ARGUMENT", ("point.payload",))


def test_a_field_is_named_as_its_message_names_it(client: GrpcClient) -> None:
    search = pb.SearchRequest(collection="documents", vector=[1, 0, 0, 0], payload_fields=["a b"])
    assert refused(lambda: client.call("Search", search)).fields == ("payload_fields.0",)
    search = pb.SearchRequest(collection="documents", vector=[1, 0, 0, 0], payload_fields=["a"], with_payload=False)
    assert refused(lambda: client.call("Search", search)).fields == ("payload_fields",)
    assert refused(lambda: client.delete("documents", "")).fields == ("id",)
    other = pb.SearchRequest(collection="other", vector=[1, 0, 0, 0])
    batch = pb.BatchSearchRequest(collection="documents", searches=[other])
    assert refused(lambda: client.call("BatchSearch", batch)).fields == ("searches.0.collection",)


def test_what_is_wrong_is_told_within_what_clients_take_of_metadata(client: GrpcClient) -> None:
    condition = {"match": {f"{n} {'ü' * 500}": 1 for n in range(50)}}
    error = refused(lambda: client.search("documents", vector=[1, 0, 0, 0], filter=condition))
    assert (error.kind, len(error.fields)) == ("INVALID_ARGUMENT", 8)


def test_a_request_that_is_too_large_is_refused_before_it_is_in_memory(client: GrpcClient, gateway: Gateway) -> None:
    assert gateway.process is not None
    call = client.channel.unary_unary(SEARCH)
    metadata = (*client.metadata, ("x-request-id", "too-large"))
    before = peak_memory(gateway.process.pid)
    error = refused(lambda: call(bytes(200 * MIB), metadata=metadata))
    assert error.kind == "RESOURCE_EXHAUSTED"
    assert peak_memory(gateway.process.pid) - before < 100 * MIB
    assert audited(gateway, "too-large")["outcome"] == "RESOURCE_EXHAUSTED"


def test_a_message_is_not_read_before_its_token_is(client: GrpcClient) -> None:
    began = time.monotonic()

    def never() -> Iterator[bytes]:
        time.sleep(30)
        yield b""

    call = client.channel.stream_unary(SEARCH)
    assert refused(lambda: call(never(), timeout=25)).kind == "UNAUTHENTICATED"
    assert time.monotonic() - began < 20


def test_a_compressed_message_is_refused_before_it_is_not_compressed(client: GrpcClient, gateway: Gateway) -> None:
    assert gateway.process is not None
    before = peak_memory(gateway.process.pid)
    options = [*CHANNEL_OPTIONS, ("grpc.default_compression_level", 2)]
    with grpc.insecure_channel(gateway.grpc_address, options=options, compression=grpc.Compression.Gzip) as channel:
        error = refused(lambda: channel.unary_unary(SEARCH)(bytes(200 * MIB), metadata=client.metadata))
    assert error.kind == "UNIMPLEMENTED"
    assert peak_memory(gateway.process.pid) - before < 100 * MIB
    assert client.list_collections()


def peak_memory(pid: int) -> int:
    """Bytes that a process had in memory at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_a_deadline_ends_the_request_to_qdrant_too(
    with_silent_qdrant: Gateway, silent_qdrant: SilentServer, organisation: str
) -> None:
    client = GrpcClient(with_silent_qdrant, login(organisation))
    before = silent_qdrant.requests
    assert silent_qdrant.wait_for(lambda: silent_qdrant.open == 0)
    request = pb.SearchRequest(collection="documents", vector=[1, 0, 0, 0])
    metadata = (*client.metadata, ("x-request-id", organisation))
    error = refused(lambda: client.stub.Search(request, metadata=metadata, timeout=0.5))
    assert error.kind == "DEADLINE_EXCEEDED"
    assert silent_qdrant.wait_for(lambda: silent_qdrant.requests == before + 1)
    assert silent_qdrant.wait_for(lambda: silent_qdrant.open == 0)
    line = audited(with_silent_qdrant, organisation)
    assert line["outcome"] == "DEADLINE_EXCEEDED"
    assert line["duration_ms"] < 2000
    client.close()


def test_a_call_that_is_cancelled_is_cancelled_at_qdrant_and_audited(
    with_silent_qdrant: Gateway, silent_qdrant: SilentServer, organisation: str
) -> None:
    client = GrpcClient(with_silent_qdrant, login(organisation))
    before = silent_qdrant.requests
    request = pb.SearchRequest(collection="documents", vector=[1, 0, 0, 0])
    call = client.stub.Search.future(request, metadata=(*client.metadata, ("x-request-id", organisation)))
    assert silent_qdrant.wait_for(lambda: silent_qdrant.requests > before)
    call.cancel()
    assert silent_qdrant.wait_for(lambda: silent_qdrant.open == 0)
    assert audited(with_silent_qdrant, organisation)["outcome"] == "CANCELLED"
    client.close()


def test_a_deadline_that_has_passed_asks_nobody(
    with_silent_qdrant: Gateway, silent_qdrant: SilentServer, organisation: str
) -> None:
    client = GrpcClient(with_silent_qdrant, login(organisation))
    before = silent_qdrant.requests
    with pytest.raises(grpc.RpcError) as caught:
        client.stub.ListCollections(pb.ListCollectionsRequest(), metadata=client.metadata, timeout=0)
    assert api_error(caught.value).kind == "DEADLINE_EXCEEDED"
    assert silent_qdrant.requests == before
    client.close()


def test_reflection_describes_the_service_to_whoever_asks(gateway: Gateway) -> None:
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE.full_name),
        ]
        services, files = stub.ServerReflectionInfo(iter(requests), timeout=20)
    names = {service.name for service in services.list_services_response.service}
    assert {SERVICE.full_name, "grpc.health.v1.Health"} <= names
    described = descriptor_pb2.FileDescriptorProto.FromString(files.file_descriptor_response.file_descriptor_proto[0])
    assert described.package == "plinth.vectors.v1"


@pytest.mark.parametrize("service", ["", SERVICE.full_name])
def test_health_is_told_to_whoever_asks(gateway: Gateway, service: str) -> None:
    with grpc.insecure_channel(gateway.grpc_address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_calls_are_counted_by_method_and_code(client: GrpcClient, gateway: Gateway) -> None:
    headers = {"authorization": f"Bearer {METRICS_TOKEN}"}

    def count() -> float:
        page = httpx.get(f"{gateway.url}/metrics", headers=headers).text
        line = 'plinth_gateway_grpc_requests_total{code="NOT_FOUND",method="Get"} '
        return sum(float(text.removeprefix(line)) for text in page.splitlines() if text.startswith(line))

    before = count()
    refused(lambda: client.get("missing", ["a"]))
    assert count() == before + 1
