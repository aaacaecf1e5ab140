"""Asking Prometheus."""

from __future__ import annotations

from typing import Any

import httpx


def samples(url: str, expression: str) -> list[dict[str, Any]]:
    """What an expression gives now: each series' labels and value."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}, timeout=30).json()
    assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def values(url: str, expression: str) -> list[str]:
    """The values alone, as Prometheus prints them."""
    return [sample["value"][1] for sample in samples(url, expression)]
