"""What no client of good will sends: refused with the documented code, in bounded memory, without a word of ours."""

from __future__ import annotations

import gzip
import json
import socket
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from plinth.gateway.caller import Scope
from tests.gateway.conftest import METRICS_TOKEN, Gateway, login

SEARCH = "/v1/collections/embeddings/search"
UPSERT = "/v1/collections/embeddings/points"
VECTOR = [0.1] * 384


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


BODIES: dict[str, tuple[str, bytes, str]] = {
    "no JSON": (SEARCH, b"{", "body"),
    "not UTF-8": (SEARCH, b'{"text": "\xff"}', "body"),
    "NaN": (SEARCH, json.dumps({"vector": [float("nan")] * 384}).encode(), "body"),
    "Infinity": (SEARCH, b'{"vector": [Infinity]}', "body"),
    "1e39": (SEARCH, json.dumps({"vector": [1e39] * 384}).encode(), "vector"),
    "1e999": (SEARCH, b'{"vector": [1e999]}', "vector"),
    "a number of many digits": (SEARCH, b'{"top_k": ' + b"9" * 5000 + b"}", "body"),
    "deep JSON": (UPSERT, nested(100).encode(), "body"),
    "very deep JSON": (UPSERT, b"[" * 100_000 + b"]" * 100_000, "body"),
    "a key twice": (SEARCH, b'{"text": "a", "text": "b"}', "text"),
    "a key twice in a payload": (
        UPSERT,
        b'{"points": [{"id": "1", "vector": [1], "payload": {"org_id": "a", "org_id": "b"}}]}',
        "org_id",
    ),
    "half a surrogate": (SEARCH, b'{"text": "\\ud800"}', "body"),
    "an unknown field": (SEARCH, b'{"text": "a", "organisation": "other"}', "organisation"),
    "another owner's field": (SEARCH, b'{"text": "a", "org_id": "other"}', "org_id"),
    "an empty vector": (SEARCH, b'{"vector": []}', "vector"),
    "a text as a vector": (SEARCH, b'{"vector": "abc"}', "vector"),
    "a list": (SEARCH, b"[]", "body"),
    "nothing": (SEARCH, b"", "body"),
    "a null": (SEARCH, b"null", "body"),
    "top_k of text": (SEARCH, b'{"text": "a", "top_k": "10"}', "top_k"),
    "top_k too large": (SEARCH, b'{"text": "a", "top_k": 10000}', "top_k"),
    "top_k of zero": (SEARCH, b'{"text": "a", "top_k": 0}', "top_k"),
    "an id of a number": (UPSERT, json.dumps({"points": [{"id": 1, "vector": VECTOR}]}).encode(), "id"),
    "an empty id": (UPSERT, json.dumps({"points": [{"id": "", "vector": VECTOR}]}).encode(), "points.0.id"),
    "no points": (UPSERT, b'{"points": []}', "points"),
}


@pytest.mark.parametrize(("path", "body", "field"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_none_is_refused_by_its_field(gateway: Gateway, path: str, body: bytes, field: str) -> None:
    method = "PUT" if path == UPSERT else "POST"
    headers = login("hostile") | {"content-type": "application/json"}
    answer = httpx.request(method, gateway.url + path, content=body, headers=headers, timeout=30)
    assert answer.status_code == 400, answer.text
    problem = answer.json()
    assert problem["code"] == "INVALID_ARGUMENT"
    assert field in problem["detail"]
    for inside in ("Traceback", "plinth.", "pydantic", "127.0.0.1", "embeddings_v1", "hostile_"):
        assert inside not in answer.text


@pytest.mark.parametrize("told", [True, False], ids=["with its length", "in chunks"])
def test_a_hundred_megabytes_are_refused_in_bounded_memory(gateway: Gateway, told: bool) -> None:
    assert gateway.process is not None
    before = psutil.Process(gateway.process.pid).memory_info().rss
    size = 100 * 2**20

    def chunks() -> Any:
        for _ in range(100):
            yield b" " * 2**20

    headers = login("hostile") | {"content-type": "application/json"}
    if told:
        headers["content-length"] = str(size)
    status = None
    # It may end the connection while the rest is on its way.
    with suppress(httpx.HTTPError):
        status = httpx.post(gateway.url + SEARCH, content=chunks(), headers=headers, timeout=60).status_code
    assert status in (413, None)
    assert psutil.Process(gateway.process.pid).memory_info().rss - before < size


def test_a_body_of_many_small_values_is_refused_before_they_are_made(gateway: Gateway) -> None:
    """Thirty megabytes of empty lists would take a gigabyte."""
    assert gateway.process is not None
    before = psutil.Process(gateway.process.pid).memory_info().rss
    headers = login("hostile") | {"content-type": "application/json"}
    body = b'{"filter": [' + b"[]," * 10_000_000 + b"[]]}"
    assert httpx.post(gateway.url + SEARCH, content=body, headers=headers, timeout=60).status_code == 413
    assert psutil.Process(gateway.process.pid).memory_info().rss - before < 4 * len(body)


def test_a_compressed_body_is_refused_before_it_grows(gateway: Gateway) -> None:
    headers = login("hostile") | {"content-type": "application/json", "content-encoding": "gzip"}
    answer = httpx.post(gateway.url + SEARCH, content=gzip.compress(b" " * 10**8), headers=headers)
    assert answer.status_code == 400
    assert "content-encoding" in answer.json()["detail"]


def test_who_has_no_token_is_refused_before_the_body_is_read(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.config["listen"]["http_port"]), timeout=10) as connection:
        head = f"POST {SEARCH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
        connection.sendall(head.encode())
        assert b"401" in connection.recv(4096).split(b"\r\n")[0]


def test_slow_clients_hold_nobody_up(gateway: Gateway) -> None:
    """Thirty that send a byte of a head now and then; another is answered all the same."""
    slow = [
        socket.create_connection(("127.0.0.1", gateway.config["listen"]["http_port"]), timeout=10) for _ in range(30)
    ]
    try:
        for connection in slow:
            connection.sendall(b"POST /v1")
        assert httpx.get(f"{gateway.url}/healthz", timeout=5).status_code == 200
    finally:
        for connection in slow:
            connection.close()


PATHS = [
    "/v1/collections/..",
    "/v1/collections/%2e%2e",
    "/v1/collections/a%2fb",
    "/v1/collections/%00",
    "/v1/collections/" + "a" * 255,
    "/v1/collections/embeddings_v1",
    "/v1/collections/private",
    "/v1/collections/private_v1",
    "/v1/collections/%D0%B0cme",
    "/nothing",
    "/v1",
    "//v1/collections",
    "/metrics/",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_to_nothing_of_theirs_leads_nowhere(gateway: Gateway, path: str) -> None:
    answer = httpx.get(gateway.url + path, headers=login("hostile"))
    assert answer.status_code in (400, 404), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "private" not in answer.json()["detail"]


def test_a_scope_that_is_missing_is_missing(gateway: Gateway) -> None:
    for scope, allowed in ((Scope.read, {"read"}), (Scope.write, {"write"}), (Scope.admin, {"admin"})):
        with gateway.http("scoped", "u", scope) as http:
            answers = {
                "read": http.post(SEARCH, json={"vector": VECTOR}),
                "write": http.put(UPSERT, json={"points": [{"id": "1", "vector": VECTOR}]}),
                "admin": http.post("/v1/collections", json={"name": "s", "dimension": 2, "distance": "Dot"}),
            }
            assert {name for name, answer in answers.items() if answer.is_success} == allowed
            assert all(answer.status_code == 403 for name, answer in answers.items() if name not in allowed)
    gateway.http("scoped").delete("/v1/collections/s").raise_for_status()


def test_the_metrics_page_has_a_token_of_its_own_and_no_label_of_a_callers(gateway: Gateway) -> None:
    assert httpx.get(f"{gateway.url}/metrics").status_code == 401
    assert httpx.get(f"{gateway.url}/metrics", headers=login("hostile")).status_code == 401
    gateway.http("label-of-a-caller").get("/v1/collections/some-name-of-a-caller")
    page = httpx.get(f"{gateway.url}/metrics", headers={"authorization": f"Bearer {METRICS_TOKEN}"}).text
    assert 'route="/v1/collections/{collection}"' in page
    assert "of-a-caller" not in page
    assert 'operation="get_collection",outcome="NOT_FOUND"' in page.replace(" ", "")
    # The dispatcher in the gateway shows them from its first round on.
    assert 'plinth_gateway_jobs{status="pending"}' in page


def test_a_timeout_that_is_over_is_told_as_such(gateway: Gateway) -> None:
    headers = login("hostile") | {"x-request-timeout-ms": "0"}
    assert httpx.post(gateway.url + SEARCH, json={"vector": VECTOR}, headers=headers).status_code == 400
