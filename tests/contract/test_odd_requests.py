"""Malformed and odd requests: a real server's status class is on record, and the embedded engine answers likewise.

`odd_requests.jsonl` has one request a line, by family. `status` is the class that Qdrant 1.18.3 answers; `embedded` is
there where the embedded engine's is another on purpose: it refuses each word that it does not know or cannot do (a real
server passes over it), and vectors that single precision cannot hold (a real server stores infinity).
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import KEY, Server

LINES = [json.loads(line) for line in (Path(__file__).parent / "odd_requests.jsonl").read_text().splitlines()]
SETUP = [line["setup"] for line in LINES if "setup" in line]
FAMILIES: dict[str, list[dict[str, Any]]] = defaultdict(list)
for line in LINES:
    if "name" in line:
        FAMILIES[line["name"].partition(" ")[0]].append(line)
COLLECTIONS = ("d", "lk", "st", "x")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_odd_request_is_answered_as_on_record_and_harms_nothing(server: Server, family: str) -> None:
    engine = "embedded" if "plinth.embedded" in server.command else "real"
    with httpx.Client(base_url=server.url, headers={"api-key": KEY}, timeout=60) as client:
        _remove(client)
        for method, path, body in SETUP:
            client.request(method, path, json=body).raise_for_status()
        processes = _processes(server)
        wrong = []
        for case in FAMILIES[family]:
            answer = client.request(case["method"], case["path"], **_content(case))
            expected = case.get("embedded", case["status"]) if engine == "embedded" else case["status"]
            if f"{answer.status_code // 100}xx" != expected:
                wrong.append(f"{case['name']}: {answer.status_code}, expected {expected}: {answer.text[:200]}")
            if case["path"] == "/collections/tmp":
                listed = client.get("/collections").json()["result"]["collections"]
                assert ({"name": "tmp"} in listed) == (answer.status_code == 200), case["name"]
                client.delete("/collections/tmp")
        for name in COLLECTIONS:
            info = client.get(f"/collections/{name}").json()["result"]
            assert info["status"] != "red", (name, info)
            assert client.post(f"/collections/{name}/points/scroll", json={"limit": 5}).status_code == 200
        assert client.get("/metrics").status_code == 200
        assert processes <= _processes(server), "the process of a collection ended"
        _remove(client)
    assert not wrong, "\n".join(wrong)


def _processes(server: Server) -> set[int]:
    assert server.process is not None
    return {child.pid for child in psutil.Process(server.process.pid).children()}


def _content(case: dict[str, Any]) -> dict[str, Any]:
    if "raw" in case:
        return {"content": case["raw"].encode("latin-1"), "headers": {"content-type": "application/json"}}
    return {"json": case["body"]} if "body" in case else {}


def _remove(client: httpx.Client) -> None:
    for name in (*COLLECTIONS, "tmp"):
        client.delete(f"/collections/{name}")
