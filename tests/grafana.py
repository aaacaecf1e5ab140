"""Asking a running Grafana, as its admin."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest


def has_grafana() -> bool:
    """Whether this machine has one."""
    return bool(os.environ.get("PLINTH_GRAFANA") or shutil.which("grafana"))


needs_grafana = pytest.mark.skipif(not has_grafana(), reason="no grafana binary: set PLINTH_GRAFANA or put it on PATH")


# What a sound Grafana calls an error, and why it is none.
NO_ERROR = {
    "Failed to detect generated javascript files": "one that was built without its pages answers its API",
    "failed to open plugins path": "no plugin was ever installed",
    "provisioning files from directory": "no plugin and no alert is provisioned",
}


def errors(log: str) -> list[str]:
    """The lines of its log that tell of something wrong."""
    lines = [line for line in log.splitlines() if "level=error" in line or "level=crit" in line]
    return [line for line in lines if not any(words in line for words in NO_ERROR)]


class Grafana:
    """Its API, by what ``plinth outputs`` says of it."""

    def __init__(self, where: Mapping[str, Any]) -> None:
        self.url, self.user, self.password = where["url"], where["user"], where["password"]

    def answer(self, method: str, path: str, **sent: Any) -> httpx.Response:
        return httpx.request(method, f"{self.url}{path}", timeout=30, **sent)

    def ask(self, method: str, path: str, **sent: Any) -> Any:
        answer = self.answer(method, path, auth=(self.user, self.password), **sent)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def get(self, path: str, **params: Any) -> Any:
        return self.ask("GET", path, params=params)

    def boards(self) -> dict[str, dict[str, Any]]:
        """What it finds by the uid."""
        return {found["uid"]: found for found in self.get("/api/search", type="dash-db")}

    def rows(self, queries: Sequence[Mapping[str, Any]], seconds: int = 900) -> dict[str, int]:
        """How many values each of some queries of panels has over the last ``seconds``, by their letters."""
        now = round(time.time() * 1000)
        sent = [{**query, "maxDataPoints": 200, "intervalMs": 15000} for query in queries]
        body = {"queries": sent, "from": str(now - seconds * 1000), "to": str(now)}
        results = self.ask("POST", "/api/ds/query", json=body)["results"]
        assert {result["status"] for result in results.values()} == {200}
        return {
            letter: sum(len(frame["data"]["values"][0]) for frame in result["frames"] if frame["data"]["values"])
            for letter, result in results.items()
        }
