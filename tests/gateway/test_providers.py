"""The providers of embeddings, `http` against a server that misbehaves."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from plinth.errors import UserError
from plinth.gateway.embedding import Embedder
from plinth.gateway.errors import ErrorKind, GatewayError
from plinth.gateway.providers import embedder_for
from plinth.gateway.providers.config import HttpProvider, MiniLMProvider, MockProvider
from plinth.qdrant.search import mock_vector

SECRET_TEXT = "the-text-that-no-log-may-hold"
DIMENSION = 3


@dataclass
class Reply:
    """What the provider answers a request with."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Callable[[list[str]], bytes] | None = None
    delay_s: float = 0


def embeddings(texts: list[str]) -> list[dict[str, Any]]:
    # In an order of its own, as the API allows.
    return [{"index": n, "embedding": [float(len(text)), float(n), 0.5]} for n, text in enumerate(texts)][::-1]


def body(entries: Callable[[list[str]], object]) -> Callable[[list[str]], bytes]:
    return lambda texts: json.dumps({"data": entries(texts)}).encode()


class Api:
    """A provider that answers with its replies in turn, the last one for ever."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies) or [Reply()]
        self.requests: list[tuple[float, list[str], str | None]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = api.replies.pop(0) if len(api.replies) > 1 else api.replies[0]
                api.requests.append((time.monotonic(), sent["input"], self.headers.get("Authorization")))
                time.sleep(reply.delay_s)
                # A provider that repeats what it refuses.
                fault = json.dumps({"error": sent["input"]}).encode()
                content = (reply.body or body(embeddings))(sent["input"]) if reply.status == 200 else fault
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                # Who asked may have gone.
                with suppress(OSError):
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    @contextmanager
    def running(self) -> Iterator[Api]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield self
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def provider(*replies: Reply, **settings: Any) -> Iterator[tuple[Api, HttpProvider]]:
    with Api(*replies).running() as api:
        yield api, HttpProvider(url=api.url, model="m", dimension=DIMENSION, **settings)


def embed(settings: Any, texts: list[str], within_s: float = 20, times: int = 1) -> list[Any]:
    """The outcome of each of some calls in a row, by one embedder."""

    async def run() -> list[Any]:
        embedder: Embedder = embedder_for(settings)
        outcomes: list[Any] = []
        for _ in range(times):
            try:
                outcomes.append(await embedder.embed(texts, within_s))
            except GatewayError as error:
                outcomes.append(error)
        await embedder.close()
        return outcomes

    return asyncio.run(run())


@pytest.mark.requirement("S0-02")
def test_mock_gives_one_text_one_vector_that_no_segment_has() -> None:
    first, again = embed(MockProvider(), ["a", "b", "a"], times=2)
    assert first == again
    assert first[0] == first[2] != first[1]
    assert math.isclose(sum(value * value for value in first[0]), 1, rel_tol=1e-6)
    assert first[0] not in (mock_vector("a", "", 384), mock_vector("a", "a", 384))


def test_minilm_embeds_what_is_meant_and_leaves_the_event_loop_free() -> None:
    async def run() -> tuple[list[list[float]], int]:
        embedder, turns = embedder_for(MiniLMProvider()), 0
        texts = ["a cat sleeps", "a kitten naps", "stocks fell", *(["a long text of many words"] * 500)]
        embedding = asyncio.ensure_future(embedder.embed(texts, 60))
        while not embedding.done():
            await asyncio.sleep(0.005)
            turns += 1
        await embedder.close()
        return await embedding, turns

    (cat, kitten, stocks, *_), turns = asyncio.run(run())
    assert len(cat) == 384
    near, far = (sum(a * b for a, b in zip(cat, other, strict=True)) for other in (kitten, stocks))
    assert near > far + 0.2
    assert turns > 5


def test_minilm_ends_at_its_deadline() -> None:
    """And its thread with it, for whoever comes next."""

    async def run() -> tuple[float, float]:
        embedder = embedder_for(MiniLMProvider())
        texts = ["words " * 30] * 400
        began = time.monotonic()
        await embedder.embed(texts, 120)
        whole_s = time.monotonic() - began
        with pytest.raises(GatewayError) as refusal:
            await embedder.embed(texts, 0.05)
        assert refusal.value.kind is ErrorKind.deadline_exceeded
        began = time.monotonic()
        await embedder.embed(["a text"], 120)
        waited_s = time.monotonic() - began
        await embedder.close()
        return whole_s, waited_s

    whole_s, waited_s = asyncio.run(run())
    assert waited_s < whole_s / 2


@pytest.mark.requirement("S2-05")
def test_http_sends_fifty_texts_a_request_with_the_key_and_keeps_their_order(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("key-of-the-provider\n")
    texts = ["x" * n for n in range(120)]
    with provider(api_key_file=key) as (api, settings):
        (vectors,) = embed(settings, texts)
    assert [vector[0] for vector in vectors] == [float(n) for n in range(120)]
    assert [len(sent) for _, sent, _ in api.requests] == [50, 50, 20]
    assert {authorization for _, _, authorization in api.requests} == {"Bearer key-of-the-provider"}


TOO_MANY = Reply(429, {"Retry-After": "1"})
TRANSIENT = {
    "a fault of its own": Reply(500),
    "overloaded": Reply(503),
    "too many": TOO_MANY,
    "cut short": Reply(headers={"Content-Length": "100000"}),
    "not JSON": Reply(body=lambda _: b"<html>"),
    "NaN": Reply(body=lambda _: b'{"data": [{"index": 0, "embedding": [NaN, 1, 2]}]}'),
    "one too few": Reply(body=body(lambda texts: embeddings(texts)[1:])),
    "one twice": Reply(body=body(lambda texts: embeddings(texts)[:1] * len(texts))),
    "without end": Reply(body=lambda _: b" " * 3_000_000),
}


@pytest.mark.requirement("S3-04")
@pytest.mark.parametrize("reply", TRANSIENT.values(), ids=list(TRANSIENT))
def test_http_tries_again_after_what_may_pass(reply: Reply, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with provider(reply, Reply()) as (api, settings):
        (vectors,) = embed(settings, [SECRET_TEXT, "b"])
    assert [vector[1] for vector in vectors] == [0.0, 1.0]
    assert len(api.requests) == 2
    assert SECRET_TEXT not in caplog.text


def test_http_waits_as_long_as_retry_after_says() -> None:
    for form, at_least_s in (("seconds", 1.0), ("date", 1.0)):
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=4), usegmt=True)
        header = "1" if form == "seconds" else date
        with provider(Reply(429, {"Retry-After": header}), Reply()) as (api, settings):
            embed(settings, ["a"])
        (first, *_), (second, *_) = api.requests
        assert second - first >= at_least_s


REFUSALS = {
    "longer than the deadline": (Reply(429, {"Retry-After": "60"}), ErrorKind.resource_exhausted, 60),
    "the texts": (Reply(400), ErrorKind.invalid_argument, None),
    "their size": (Reply(413), ErrorKind.invalid_argument, None),
    "another dimension": (
        Reply(body=body(lambda texts: [{"index": n, "embedding": [1.0]} for n in range(len(texts))])),
        ErrorKind.invalid_argument,
        None,
    ),
}


@pytest.mark.parametrize(("reply", "kind", "retry_after_s"), REFUSALS.values(), ids=list(REFUSALS))
def test_http_does_not_insist(
    reply: Reply, kind: ErrorKind, retry_after_s: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with provider(reply) as (api, settings):
        (error,) = embed(settings, [SECRET_TEXT], within_s=5)
    assert (error.kind, error.retry_after_s) == (kind, retry_after_s)
    assert len(api.requests) == 1
    assert SECRET_TEXT not in caplog.text + str(error)


def test_http_ends_at_the_callers_deadline() -> None:
    with provider(Reply(delay_s=1)) as (_, settings):
        (error,) = embed(settings, ["a"], within_s=0.3)
    assert error.kind is ErrorKind.deadline_exceeded


def test_http_stops_asking_after_failures_in_a_row_and_begins_again_with_one_request() -> None:
    with provider(Reply(500), attempts=1, failures_to_open=3, open_s=0.4) as (api, settings):

        async def run() -> list[int]:
            embedder, sent = embedder_for(settings), []

            async def attempt() -> None:
                with pytest.raises(GatewayError) as raised:
                    await embedder.embed(["a"], 5)
                assert raised.value.kind is ErrorKind.unavailable

            for _ in range(6):
                await attempt()
            sent.append(len(api.requests))
            await asyncio.sleep(0.5)
            await asyncio.gather(*(attempt() for _ in range(4)))
            sent.append(len(api.requests))
            api.replies = [Reply()]
            await asyncio.sleep(0.5)
            for _ in range(3):
                await embedder.embed(["a"], 5)
            sent.append(len(api.requests))
            await embedder.close()
            return sent

        assert asyncio.run(run()) == [3, 4, 7]


def test_http_without_its_key_says_so_at_the_start(tmp_path: Path) -> None:
    settings = HttpProvider(url="http://127.0.0.1:1", model="m", dimension=3, api_key_file=tmp_path / "none")
    with pytest.raises(UserError, match="key"):
        embedder_for(settings)
