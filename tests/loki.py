"""Asking Loki, and giving services something to print."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx
import psycopg
import pytest

from plinth.system.tls import Pair, trusting

# Digits that are in no log by chance.
MARKED = 0.13371337
LABELS = {"stack", "service", "node", "level", "kind"}


class Loki:
    """One stack's lines."""

    def __init__(self, where: Mapping[str, Any]) -> None:
        self.url = where["url"]
        self.context = trusting(where["ca_cert"], Pair(where["client_cert"], where["client_key"]))

    def get(self, path: str, **asked: str) -> Any:
        url, params = f"{self.url}/loki/api/v1/{path}", {"since": "1h", **asked}
        answer = httpx.get(url, params=params, timeout=30, verify=self.context)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def lines(self, expression: str) -> list[str]:
        streams = self.get("query_range", query=expression, limit="1000")["result"]
        return [line for stream in streams for _, line in stream["values"]]

    def wait_for(self, expression: str) -> list[str]:
        deadline = time.monotonic() + 60
        while not (found := self.lines(expression)):
            assert time.monotonic() < deadline, f"nothing came for {expression}"
            time.sleep(1)
        return found


def fail_in_postgres(where: Mapping[str, Any], word: str) -> None:
    """Have Postgres print an error with a word of its own."""
    known = {key: where[key] for key in ("host", "port", "user", "password")}
    with psycopg.connect(**known, dbname="postgres") as connection, pytest.raises(psycopg.Error):
        connection.execute(f"SELECT {word}")  # type: ignore[arg-type]


def ask_qdrant(where: Mapping[str, Any]) -> None:
    """A write, a search, and a write that is refused."""
    point = {"id": 1, "vector": [MARKED] * 384, "payload": {"org_id": f"secret-{MARKED}"}}
    with httpx.Client(base_url=f"{where['url']}/collections/embeddings", timeout=30) as client:
        key, weak = {"api-key": where["api_key"]}, {"api-key": where["read_only_api_key"]}
        assert client.put("/points?wait=true", json={"points": [point]}, headers=key).is_success
        assert client.post("/points/query", json={"query": [MARKED] * 384}, headers=weak).is_success
        assert client.put("/points", json={"points": [point]}, headers=weak).status_code == 403
