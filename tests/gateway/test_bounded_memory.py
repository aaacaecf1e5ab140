"""Small bytes that would become large objects: refused over both protocols before they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import httpx
import psutil
import pytest

from plinth.gateway.errors import ErrorKind, GatewayError
from plinth.gateway.grpc_api.wire_format import UNCOUNTED_BYTES, check_size
from plinth.vectors.v1 import vectors_pb2 as pb
from tests.gateway.conftest import Gateway, login

BODY_BYTES = 30 * 2**20
# What is read of a request, and what a few of its objects take.
GROWTH_MAX_BYTES = 6 * BODY_BYTES


def varint(number: int) -> bytes:
    written = b""
    while number > 127:
        written += bytes([number & 127 | 128])
        number >>= 7
    return written + bytes([number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def filled(part: bytes) -> bytes:
    return part * (BODY_BYTES // len(part))


def point(payload: bytes) -> bytes:
    return field(1, b"c") + field(2, field(1, b"id") + field(3, payload))


def deep_struct(levels: int) -> bytes:
    struct = b""
    for _ in range(levels):
        # fields["a"] = Value(struct_value=...)
        struct = field(1, field(1, b"a") + field(2, field(5, struct)))
    return struct


LIST, STRUCT = field(6, b""), field(5, b"")
# The method, and a message of its request.
MESSAGES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty structs in a list": (
        "BatchUpsert",
        lambda: point(field(1, field(1, b"a") + field(2, field(6, filled(field(1, STRUCT)))))),
    ),
    "empty lists in a list": (
        "BatchUpsert",
        lambda: point(field(1, field(1, b"a") + field(2, field(6, filled(field(1, LIST)))))),
    ),
    "entries of a map": ("BatchUpsert", lambda: point(filled(field(1, field(1, b"a") + field(2, STRUCT))))),
    "empty entries of a map": ("BatchUpsert", lambda: point(filled(field(1, b"")))),
    "empty points": ("BatchUpsert", lambda: field(1, b"c") + filled(field(2, b""))),
    "deep structs": ("BatchUpsert", lambda: field(1, b"c") + filled(field(2, field(3, deep_struct(20))))),
    "empty searches": ("BatchSearch", lambda: field(1, b"c") + filled(field(2, b""))),
    "empty filters": ("Scroll", lambda: field(1, b"c") + field(2, filled(field(3, b"")))),
    "empty ids": ("Get", lambda: field(1, b"c") + filled(field(2, b""))),
    "numbers of a byte": (
        "Scroll",
        lambda: field(1, b"c") + field(2, field(1, field(1, b"a") + field(2, field(4, field(2, filled(b"\x01")))))),
    ),
    "a vector of millions": ("Search", lambda: field(1, b"c") + field(2, filled(b"\0\0\0\0"))),
    "unknown fields": ("Get", lambda: field(1, b"c") + filled(field(1000, b""))),
}
BODIES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "lists": ("search", lambda: b'{"vector": [' + filled(b"[],") + b"[]]}"),
    "objects": ("search", lambda: b'{"vector": [' + filled(b'{"a":{}},') + b"0]}"),
    "keys": ("search", lambda: b'{"parameters": {' + b",".join(b'"%x":1' % n for n in range(2_500_000)) + b"}}"),
    "texts": ("points/get", lambda: b'{"ids": [' + filled(b'"ab",') + b'""]}'),
    "numbers": ("search", lambda: b'{"vector": [' + filled(b"1,") + b"1]}"),
    "filters": ("search", lambda: b'{"filter": {"must": [' + filled(b'{"must":[{}]},') + b"{}]}}"),
}


@pytest.fixture
def bounded(gateway: Gateway) -> Iterator[Gateway]:
    """The gateway, which takes no more memory for what the test asks than a few times the request."""
    assert gateway.process is not None
    process = psutil.Process(gateway.process.pid)
    before = process.memory_info().rss
    yield gateway
    assert process.memory_info().rss - before < GROWTH_MAX_BYTES


@pytest.mark.parametrize(("method", "message"), MESSAGES.values(), ids=MESSAGES)
def test_a_message_of_many_small_objects_is_refused_before_they_are_made(
    bounded: Gateway, method: str, message: Callable[[], bytes]
) -> None:
    with grpc.insecure_channel(bounded.grpc_address, options=[("grpc.max_send_message_length", -1)]) as channel:
        call = channel.unary_unary(f"/plinth.vectors.v1.VectorService/{method}")
        with pytest.raises(grpc.RpcError) as refused:
            call(message(), metadata=list(login("hostile").items()), timeout=60)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert "values" in refused.value.details()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("path", "body"), BODIES.values(), ids=BODIES)
def test_a_body_of_many_small_values_is_refused_before_they_are_made(
    bounded: Gateway, path: str, body: Callable[[], bytes]
) -> None:
    headers = login("hostile") | {"content-type": "application/json"}
    answer = httpx.post(f"{bounded.url}/v1/collections/embeddings/{path}", content=body(), headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (413, "RESOURCE_EXHAUSTED")


def test_the_largest_batches_that_are_meant_to_be_sent_pass() -> None:
    values = [pb.Point(id=str(n), vector=[0.5] * 1536) for n in range(1000)]
    for value in values:
        value.payload.update({f"key-{n}": "text" for n in range(50)})
    check_size(
        pb.BatchUpsertRequest(collection="c", points=values).SerializeToString(), pb.BatchUpsertRequest.DESCRIPTOR
    )


@pytest.mark.parametrize(
    "content",
    [
        b"\x0a" + varint(2 * UNCOUNTED_BYTES) + b"x" * UNCOUNTED_BYTES,
        field(1, b"x" * UNCOUNTED_BYTES) + b"\xff" * 11,
        field(1, b"x" * UNCOUNTED_BYTES) + b"\x0b",
        field(1, b"x" * UNCOUNTED_BYTES) + field(2, b"\x0a\x05a"),
    ],
    ids=["cut off", "an endless number", "a group", "a part that is longer than its whole"],
)
def test_what_is_no_message_is_told_as_such(content: bytes) -> None:
    with pytest.raises(GatewayError) as refused:
        check_size(content, pb.BatchUpsertRequest.DESCRIPTOR)
    assert refused.value.kind is ErrorKind.invalid_argument
