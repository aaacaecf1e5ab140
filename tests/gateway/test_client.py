"""The client of applications, sync and async, against the gateway and against servers that fail."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from plinth.gateway.client import (
    ApiError,
    AsyncClient,
    Client,
    EmbedItem,
    ErrorKind,
    JobFailedError,
    Point,
    RetryPolicy,
    Search,
)
from plinth.gateway.tokens import issue_token
from plinth.system.ports import free_port
from tests.gateway.conftest import SIGNING_KEY, Gateway, SilentServer

QUICK = RetryPolicy(attempts=4, backoff_s=0.01, backoff_max_s=0.02)
Operation = Callable[..., Any]


def token(organisation: str) -> str:
    return issue_token(SIGNING_KEY, organisation, "user")


@contextmanager
def caller(style: str, url: str, organisation: str = "acme", **options: Any) -> Iterator[Operation]:
    """Calls a method of either client by its name."""
    if style == "sync":
        with Client(url, token(organisation), **options) as client:
            yield lambda name, *args, **named: getattr(client, name)(*args, **named)
        return
    with asyncio.Runner() as loop:
        running = loop.run(AsyncClient(url, token(organisation), **options).__aenter__())
        yield lambda name, *args, **named: loop.run(getattr(running, name)(*args, **named))
        loop.run(running.__aexit__(None, None, None))


@pytest.fixture(params=["sync", "async"])
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass
class Scripted:
    """A server that answers as it is told to, one entry a request; it keeps what it was asked."""

    answers: list[tuple[int, dict[str, str], Any] | None]
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> Scripted:
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                script.asked.append((self.command, self.path, headers, json.loads(body) if body else None))
                answer = script.answers[len(script.asked) - 1]
                if answer is None:
                    self.close_connection = True
                    return
                status, sent, content = answer
                encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {**sent, "content-length": str(len(encoded))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(encoded)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def problem(status: int, code: str, **headers: str) -> tuple[int, dict[str, str], Any]:
    return status, {"x-request-id": "r-1", **headers}, {"code": code, "detail": "a sentence"}


BUSY = problem(429, "RESOURCE_EXHAUSTED")
AWAY = problem(503, "UNAVAILABLE")
NAMES = (200, {}, {"collections": ["documents"]})


def test_collections_and_points(gateway: Gateway, organisation: str, style: str) -> None:
    with caller(style, gateway.url, organisation) as do:
        made = do("create_collection", "documents", dimension=4, distance="Cosine", hnsw={"m": 8})
        assert (made.name, made.dimension, made.points) == ("documents", 4, 0)
        assert "documents" in do("list_collections")
        do("upsert", "documents", "a/b ?", np.array([1, 0, 0, 0], dtype=np.float32), {"n": 1})
        points = [Point(id="b", vector=[0, 1, 0, 0], payload={"n": 2}), {"id": "c", "vector": (0.0, 0.0, 1.0, 0.0)}]
        assert do("batch_upsert", "documents", points) == 2
        assert do("get_collection", "documents").points == 3

        hits = do("search", "documents", [1, 0, 0, 0], top_k=1, with_vectors=True, filter={"match": {"n": 1}})
        assert [(hit.id, hit.payload["n"], hit.vector) for hit in hits] == [("a/b ?", 1, [1, 0, 0, 0])]
        assert hits[0].score == pytest.approx(1)
        both = do("batch_search", "documents", [Search(vector=[1, 0, 0, 0], top_k=1), {"vector": [0, 1, 0, 0]}])
        assert [each[0].id for each in both] == ["a/b ?", "b"]
        found = do("get", "documents", ["a/b ?", "missing"], with_payload=["n"])
        assert [(point.id, point.payload, point.vector) for point in found] == [("a/b ?", {"n": 1}, None)]

        first = do("scroll", "documents", limit=2)
        last = do("scroll", "documents", limit=2, cursor=first.next)
        assert {point.id for page in (first, last) for point in page.points} == {"a/b ?", "b", "c"}
        assert last.next is None
        assert do("delete", "documents", ["c"]) == 1
        assert do("delete_by_filter", "documents", {"range": {"n": {"gte": 2}}}) == 1
        do("delete_collection", "documents")
        with pytest.raises(ApiError) as caught:
            do("get_collection", "documents")
        assert (caught.value.kind, caught.value.message) == (ErrorKind.not_found, "collection not found")
        assert caught.value.request_id


def test_jobs_are_waited_for(gateway: Gateway, organisation: str, style: str) -> None:
    items = [EmbedItem(id="cat", text="A kitten sleeps", payload={"content": "kitten"}), {"id": "x", "text": "Oil"}]
    with caller(style, gateway.url, organisation) as do:
        job_id = do("embed", "embeddings", items, idempotency_key="mine")
        assert do("wait", job_id).progress == 100
        assert do("embed", "embeddings", items, idempotency_key="mine") == job_id
        with pytest.raises(ApiError, match="ALREADY_EXISTS"):
            do("embed", "embeddings", items[:1], idempotency_key="mine")
        assert [hit.id for hit in do("text_search", "embeddings", "a sleeping cat", top_k=1)] == ["cat"]
        assert do("hybrid_search", "embeddings", "kitten", top_k=1)[0].id == "cat"
        mock = do("mock", "doc-1", "0")
        assert do("wait", mock).result["asset_id"] == "doc-1"
        # One that has ended stays as it is.
        assert do("cancel", mock).status == do("job", mock).status == "completed"
        assert do("dead_jobs") == []
        with pytest.raises(ApiError, match="NOT_FOUND"):
            do("replay", "0c3a61a5-9a0e-5c0f-8f0e-6f1f6a1c52d4")


def test_a_job_that_is_not_completed_is_an_error(style: str) -> None:
    job = {"id": "j", "stage": "x", "progress": 5, "result": None, "error": None, "created_at": "", "updated_at": ""}
    pending, cancelled = ((200, {}, {**job, "status": status}) for status in ("pending", "cancelled"))
    with Scripted([pending, cancelled]) as server, caller(style, server.url) as do:
        with pytest.raises(JobFailedError, match="job j is cancelled") as caught:
            do("wait", "j")
        assert caught.value.job.progress == 5
    with (
        Scripted([pending] * 50) as server,
        caller(style, server.url) as do,
        pytest.raises(TimeoutError, match=r"job j did not end within 0\.5 s"),
    ):
        do("wait", "j", timeout_s=0.5)


@pytest.mark.parametrize("answer", [BUSY, AWAY, problem(504, "DEADLINE_EXCEEDED"), (502, {}, b"<html>"), None])
def test_what_may_succeed_later_is_tried_again(style: str, answer: Any) -> None:
    with Scripted([answer, answer, NAMES]) as server, caller(style, server.url, retries=QUICK) as do:
        assert do("list_collections") == ["documents"]
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("answer", "kind", "tries"),
    [
        (problem(400, "INVALID_ARGUMENT"), ErrorKind.invalid_argument, 1),
        (problem(413, "RESOURCE_EXHAUSTED"), ErrorKind.resource_exhausted, 1),
        (problem(500, "INTERNAL"), ErrorKind.internal, 1),
        ((404, {}, b"no gateway"), ErrorKind.not_found, 1),
        ((200, {}, b"<html>"), ErrorKind.internal, 1),
        ((200, {}, {"collections": 5}), ErrorKind.internal, 1),
        (AWAY, ErrorKind.unavailable, 4),
        (None, ErrorKind.unavailable, 4),
    ],
)
def test_an_error_says_its_kind(style: str, answer: Any, kind: ErrorKind, tries: int) -> None:
    with Scripted([answer] * tries) as server, caller(style, server.url, retries=QUICK) as do:
        with pytest.raises(ApiError) as caught:
            do("list_collections")
        assert (caught.value.kind, len(server.asked)) == (kind, tries)


@pytest.mark.parametrize(("answer", "tries"), [(BUSY, 2), (AWAY, 1), (None, 1)])
def test_what_must_not_be_done_twice_is_tried_again_only_where_it_was_not_done(
    style: str, answer: Any, tries: int
) -> None:
    made = (201, {}, {"name": "x", "dimension": 4, "distance": "Dot", "points": 0, "shared": False, "later": 1})
    with Scripted([answer, made]) as server, caller(style, server.url, retries=QUICK) as do:
        if tries == 1:
            with pytest.raises(ApiError) as caught:
                do("create_collection", "x", dimension=4, distance="Dot")
            assert caught.value.may_be_done
        else:
            assert do("create_collection", "x", dimension=4, distance="Dot").name == "x"
        assert len(server.asked) == tries


def test_a_job_is_asked_for_again_by_its_key(style: str) -> None:
    with Scripted([None, (202, {}, {"job_id": "j", "items": 1})]) as server, caller(style, server.url) as do:
        assert do("embed", "documents", [{"id": "a", "text": "b"}], idempotency_key="k") == "j"
        (_, path, headers, body), again = server.asked
        assert (path, headers["idempotency-key"]) == ("/v1/collections/documents/embed", "k")
        assert (again[1], again[2]["idempotency-key"], again[3]) == (path, "k", body)


def test_a_pause_is_no_shorter_than_the_gateway_asks_for(style: str) -> None:
    soon = problem(429, "RESOURCE_EXHAUSTED", **{"retry-after": "1"})
    with Scripted([soon, NAMES]) as server, caller(style, server.url, retries=QUICK) as do:
        began = time.monotonic()
        do("list_collections")
        assert time.monotonic() - began >= 1
    late = problem(429, "RESOURCE_EXHAUSTED", **{"retry-after": "60"})
    with Scripted([late]) as server, caller(style, server.url, timeout_s=5) as do:
        with pytest.raises(ApiError) as caught:
            do("list_collections")
        assert (caught.value.retry_after_s, caught.value.request_id, len(server.asked)) == (60, "r-1", 1)


def test_a_call_ends_with_its_timeout(style: str) -> None:
    with SilentServer() as server, caller(style, f"http://127.0.0.1:{server.port}", timeout_s=0.2) as do:
        with pytest.raises(ApiError) as caught:
            do("list_collections")
        assert (caught.value.kind, caught.value.may_be_done) == (ErrorKind.deadline_exceeded, True)
        assert server.requests == 1


def test_a_gateway_that_is_not_there_is_named(style: str) -> None:
    with caller(style, f"http://127.0.0.1:{free_port()}", retries=QUICK) as do:
        with pytest.raises(ApiError, match="cannot be reached") as caught:
            do("upsert", "documents", "a", [1.0])
        assert (caught.value.kind, caught.value.may_be_done) == (ErrorKind.unavailable, False)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_no_address_can_have_is_refused(style: str, name: str) -> None:
    with caller(style, f"http://127.0.0.1:{free_port()}") as do, pytest.raises(ApiError, match="INVALID_ARGUMENT"):
        do("get_collection", name)


def test_a_token_that_is_called_is_asked_for_each_request() -> None:
    tokens = iter(["first", "second"])
    with Scripted([AWAY, NAMES]) as server, Client(server.url, lambda: next(tokens), retries=QUICK) as client:
        client.list_collections()
        assert [headers["authorization"] for _, _, headers, _ in server.asked] == ["Bearer first", "Bearer second"]
        # The gateway is told how long the answer is waited for, and less at the second try.
        waited = [int(headers["x-request-timeout-ms"]) for _, _, headers, _ in server.asked]
        assert 30_000 >= waited[0] > waited[1]


def test_both_clients_have_the_same_methods() -> None:
    def methods(client: type) -> dict[str, str]:
        return {name: str(inspect.signature(getattr(client, name))) for name in vars(client) if name[0] != "_"}

    assert methods(Client) == methods(AsyncClient)
    assert methods(Client)["get"].startswith("(self, /, collection: 'str', ids:")
    assert "left out" in str(Client.get.__doc__)
