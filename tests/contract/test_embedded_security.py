"""Keys, errors and hostile requests: the routes are the application's own, so that a new one is covered at once."""

from __future__ import annotations

import hmac
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.routing import Route

from plinth.embedded.app import Front
from plinth.embedded.config import Config, load
from plinth.qdrant.client import Qdrant
from tests.conftest import KEY, READ_ONLY_KEY, Server, make_server
from tests.contract.raw import exchanged, head

OPEN = {"/", "/healthz", "/livez", "/readyz"}
READING_POSTS = {
    "/collections/{name}/facet",
    "/collections/{name}/points",
    "/collections/{name}/points/scroll",
    "/collections/{name}/points/count",
    "/collections/{name}/points/query",
    "/collections/{name}/points/query/batch",
    "/collections/{name}/points/query/groups",
    "/collections/{name}/points/search",
    "/collections/{name}/points/search/batch",
    "/collections/{name}/points/search/groups",
    "/collections/{name}/points/recommend",
    "/collections/{name}/points/recommend/batch",
    "/collections/{name}/points/recommend/groups",
}
METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE")


def routes() -> list[tuple[str, str]]:
    """Each method and path of the application, and for each path every other method too."""
    config = Config("127.0.0.1", 0, Path("/nonexistent/storage"), Path("/nonexistent/snapshots"))
    front = Front.__new__(Front)
    front.config, front.endpoints = config, Unasked()
    paths = [route.path for route in front.routes() if isinstance(route, Route)]
    return sorted({(method, path) for path in paths for method in METHODS})


class Unasked:
    """Endpoints that exist and are not called."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def filled(path: str) -> str:
    """A path with values for its parameters."""
    values = {"name": "c", "id": "1", "field:path": "t", "snapshot": "s", "rest:path": "no/such/path"}
    return re.sub(r"\{(.*?)\}", lambda match: values[match[1]], path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a plain collection, and one with strict mode and links within a tenant alone."""
    started = make_server("embedded", tmp_path_factory.mktemp("guarded") / "server")
    started.start()
    with Qdrant(started.url, KEY) as client:
        vectors = {"vectors": {"size": 2, "distance": "Dot"}}
        strict = {"enabled": True, "max_query_limit": 5, "unindexed_filtering_retrieve": False, "search_max_hnsw_ef": 9}
        client.call("PUT", "/collections/c", vectors)
        client.call("PUT", "/collections/strict", vectors | {"strict_mode_config": strict})
        client.call("PUT", "/collections/tenants", vectors | {"hnsw_config": {"m": 0, "payload_m": 16}})
        tenant = {"field_name": "t", "field_schema": {"type": "keyword", "is_tenant": True}}
        client.call("PUT", "/collections/tenants/index", tenant)
        for name in ("c", "strict", "tenants"):
            points = [{"id": i, "vector": [i, 1], "payload": {"t": "a"}} for i in range(5)]
            client.call("PUT", f"/collections/{name}/points?wait=true", {"points": points})
    yield started
    started.stop(signal.SIGKILL)


def engines(server: Server) -> set[int]:
    assert server.process is not None
    return {child.pid for child in psutil.Process(server.process.pid).children()}


@pytest.mark.parametrize("key", [None, "wrong", KEY[:-1], f"{KEY}x", READ_ONLY_KEY[:-1], "ü", "Bearer", KEY.upper()])
def test_without_a_right_key_every_route_is_closed(server: Server, key: str | None) -> None:
    opened = set()
    for method, path in routes():
        status, answer = exchanged(server, head(method, filled(path), key, Connection="close"))
        if status != 401:
            opened.add((method, path, status))
        assert b"access-control" not in answer.lower()
    assert {(method, path) for method, path, _ in opened} == {(m, p) for p in OPEN for m in ("GET", "HEAD")}


def test_the_read_only_key_reads_and_does_not_write(server: Server) -> None:
    before = state(server)
    for method, path in routes():
        reads = method in ("GET", "HEAD") or (method == "POST" and path in READING_POSTS)
        status, _ = exchanged(server, head(method, filled(path), READ_ONLY_KEY, Connection="close"))
        assert (status != 403) if reads or (path in OPEN and method in ("GET", "HEAD")) else (status == 403), (
            method,
            path,
        )
        assert status != 401
    assert state(server) == before


def state(server: Server) -> dict[str, Any]:
    with Qdrant(server.url, KEY) as client:
        names = client.collections()
        return {name: client.call("POST", f"/collections/{name}/points/scroll", {"limit": 5}) for name in names}


def test_keys_are_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    original = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(b) or original(a, b))
    config = Config(
        "127.0.0.1", 0, tmp_path / "s", tmp_path / "t", api_key="one", alt_api_key="two", read_only_api_key="three"
    )
    scope = {"type": "http", "method": "GET", "path": "/collections", "headers": [(b"api-key", b"one")], "state": {}}
    assert Front(config).denied(Request(scope), "/collections") is None
    assert compared == [b"one", b"two", b"three"]


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /collections%3F/healthz",
        "GET /collections?/healthz",
        "GET /collections#/healthz",
        "GET /healthz/../collections",
        "GET /healthz%2f..%2fcollections",
        "GET /healthz/%2e%2e/collections",
        "GET //collections",
        "GET /./collections",
        "GET /%63ollections",
        "GET /collections;/healthz",
        "GET http://h/collections",
        "GET http://h/healthz/../collections",
        "GET /healthz/",
        "GET /HEALTHZ",
        "GET /collections%00/healthz",
        "GET /metrics",
        "GET /telemetry",
        "GET /no/such/path",
        "CONNECT h:80",
        "PROPFIND /collections",
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "x/healthz?"},
        {"Host": "x/healthz#"},
        {"Host": "127.0.0.1/healthz"},
        {"Host": ""},
        {"X-Original-URL": "/healthz"},
        {"X-Forwarded-Prefix": "/healthz"},
        {"X-HTTP-Method-Override": "GET", "Origin": "http://evil.example"},
    ],
)
def test_no_trick_of_the_path_or_the_host_opens_a_route(
    server: Server, request_line: str, headers: dict[str, str]
) -> None:
    method, path = request_line.split(" ", 1)
    status, answer = exchanged(server, head(method, path, None, **{"Host": "h", **headers, "Connection": "close"}))
    assert status in (400, 401, 405), answer
    assert b"access-control" not in answer.lower()


@pytest.mark.parametrize(
    "target", ["/collections/a%0d%0aX-Evil:%201", "/%0d%0aX-Evil:%201", "/collections/c/exists?x=%0d%0aX-Evil: 1"]
)
def test_line_ends_in_a_path_are_no_headers(server: Server, target: str) -> None:
    _, answer = exchanged(server, head("GET", target.replace(" ", "%20"), KEY, Connection="close"))
    assert b"x-evil" not in answer.split(b"\r\n\r\n")[0].lower()


def test_a_preflight_gets_no_leave(server: Server) -> None:
    for path in ("/collections", "/collections/c/points/query", "/"):
        headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "PUT"}
        status, answer = exchanged(server, head("OPTIONS", path, None, **headers, Connection="close"))
        assert status >= 400
        assert b"access-control" not in answer.lower()


def nested(depth: int, inner: str = '{"key": "t", "match": {"value": "a"}}') -> str:
    return '{"must": [' * depth + inner + "]}" * depth


def within(depth: int) -> str:
    return '{"must": [{"nested": {"key": "a", "filter": ' * depth + "{}" + "}}]}" * depth


WORDS = (
    "filter", "must", "should", "must_not", "min_should", "key", "match", "value", "any", "nested", "query", "prefetch",
    "params", "limit", "offset", "group_by", "group_size", "searches", "ids", "with_payload", "include", "order_by",
    "recommend", "positive", "using", "fusion",
)  # fmt: skip
HOSTILE = {
    "filter nested 100 deep": f'{{"filter": {nested(100)}, "limit": 3, "query": [1, 2], "params": {{"exact": true}}}}',
    "filter nested 400 deep": f'{{"filter": {nested(400)}, "limit": 3, "query": [1, 2]}}',
    "filter nested 100000 deep": f'{{"filter": {nested(100_000)}}}',
    "nested conditions": f'{{"filter": {within(200)}}}',
    "prefetch nested 400 deep": '{"prefetch": ' * 400 + '{"query": [1, 2]}' + ', "query": {"fusion": "rrf"}}' * 400,
    "huge limit": '{"limit": 1000000000000000, "query": [1, 2], "group_by": "t", "key": "t"}',
    "limit beyond 64 bits": '{"limit": 100000000000000000000000, "query": [1, 2], "group_by": "t", "key": "t"}',
    "negative limit": '{"limit": -1, "query": [1, 2], "group_by": "t", "key": "t"}',
    "huge offset": '{"offset": 9223372036854775807, "limit": 9223372036854775807, "query": [1, 2]}',
    "huge group": '{"group_by": "t", "group_size": 1000000000000000, "limit": 1000000, "query": [1, 2]}',
    "huge ef": '{"query": [1, 2], "params": {"hnsw_ef": 1000000000000000}}',
    "huge oversampling": '{"query": [1, 2], "params": {"quantization": {"oversampling": 1e300, "rescore": true}}}',
    "huge mmr": '{"query": {"nearest": [1, 2], "mmr": {"candidates_limit": 1000000000000000}}}',
    "not a number": '{"query": [NaN, 1]}',
    "infinity": '{"query": [1e999, 1]}',
    "threshold beyond": '{"query": [1, 2], "score_threshold": 1e999}',
    "filter of text": '{"filter": {"must": ["x"]}, "query": [1, 2]}',
    "filter of numbers": '{"filter": {"must": 7}, "query": [1, 2]}',
    "filter is text": '{"filter": "x", "query": [1, 2]}',
    "match is text": '{"filter": {"must": [{"key": "t", "match": "x"}]}, "query": [1, 2]}',
    "key is a list": '{"filter": {"must": [{"key": [1], "match": {"value": 1}}]}, "query": [1, 2]}',
    "nested is text": '{"filter": {"must": [{"key": "t", "nested": "x"}]}, "query": [1, 2]}',
    "min_should is text": '{"filter": {"min_should": "x"}, "query": [1, 2]}',
    "prefetch is text": '{"prefetch": "x", "query": [1, 2]}',
    "prefetch of text": '{"prefetch": ["x"], "query": [1, 2]}',
    "params is text": '{"params": "x", "query": [1, 2]}',
    "quantization is text": '{"params": {"quantization": "x"}, "query": [1, 2]}',
    "limit is text": '{"limit": "x", "params": {"hnsw_ef": "x"}, "query": [1, 2]}',
    "searches of text": '{"searches": ["x"]}',
    "searches is text": '{"searches": "x"}',
    "a list": "[]",
    "nothing": "",
    "no JSON": "{",
    "not UTF-8": '{"query": "\udcff"}',
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("collection", ["c", "strict", "tenants"])
def test_no_request_of_the_read_only_key_ends_the_engine(server: Server, collection: str, kind: str) -> None:
    before = engines(server)
    for path in sorted(READING_POSTS):
        answer = httpx.post(
            server.url + path.format(name=collection),
            headers={"api-key": READ_ONLY_KEY},
            content=HOSTILE[kind].encode(errors="surrogateescape"),
            timeout=60,
        )
        assert answer.status_code in (200, 400, 404, 422, 501), (path, answer.text[:300])
    assert engines(server) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(body=JSON, path=st.sampled_from(sorted(READING_POSTS)), collection=st.sampled_from(["strict", "tenants"]))
def test_whatever_json_is_asked_the_engine_lives(server: Server, body: Any, path: str, collection: str) -> None:
    before = engines(server)
    headers = {"api-key": READ_ONLY_KEY}
    answer = httpx.post(server.url + path.format(name=collection), headers=headers, json=body, timeout=60)
    assert answer.status_code in (200, 400, 404, 422, 501), answer.text[:300]
    assert engines(server) == before


def test_an_internal_error_shows_no_path_and_no_traceback_but_an_id_of_the_log(tmp_path: Path) -> None:
    server = make_server("embedded", tmp_path / "server")
    server.start()
    headers = {"api-key": KEY}
    try:
        body = {"vectors": {"size": 2, "distance": "Dot"}}
        assert httpx.put(f"{server.url}/collections/c", headers=headers, json=body).status_code == 200
        # A front that cannot write, and an engine that cannot open.
        snapshots = load(server.directory / "config.yaml").snapshots
        snapshots.write_text("a file where a directory belongs")
        answers = [httpx.post(f"{server.url}/collections/c/snapshots", headers=headers)]
        server.stop()
        for config in (server.directory / "storage").rglob("edge_config.json"):
            config.write_text("{")
        server.start()
        answers.append(httpx.post(f"{server.url}/collections/c/points/count", headers=headers, json={}))
        answers.append(httpx.post(f"{server.url}/collections/c/snapshots", headers=headers))
        assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 200
        described = httpx.get(f"{server.url}/collections/c", headers=headers).json()["result"]
        assert described["status"] == "red"
        assert str(tmp_path) not in str(described)
        log = (server.directory / "log").read_text()
        for answer in answers:
            assert answer.status_code == 500
            message = answer.json()["status"]["error"]
            assert "/" not in message
            assert "Error" not in message
            request_id = message.rsplit(" ", 1)[1]
            assert len(request_id) == 32
            assert f"request id {request_id}" in log
        assert "Traceback" in log
        assert str(tmp_path) in log
    finally:
        server.stop(signal.SIGKILL)


def test_what_is_asked_does_not_forge_lines_of_the_log(server: Server) -> None:
    exchanged(server, head("GET", "/collections/x%0aFORGED%20line", KEY, Connection="close"))
    exchanged(server, head("PUT", "/collections/x%0aFORGED%20line", KEY, Connection="close"))
    assert "\nFORGED" not in (server.directory / "log").read_text()


def test_json_of_an_error_quotes_what_was_asked(server: Server) -> None:
    _, answer = exchanged(server, head("GET", "/collections/%1b%5B2J%22%7D", KEY, Connection="close"))
    content = answer.split(b"\r\n\r\n", 1)[1]
    assert b"\x1b" not in content
    assert "\x1b[2J" in json.loads(content)["status"]["error"]
