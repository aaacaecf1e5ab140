"""Asking Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

Section = Mapping[str, Any]
"""What ``plinth outputs`` says of it."""


def get(section: Section, path: str, **params: str) -> Any:
    """The data of an answer of its API."""
    auth = (section["user"], section["password"])
    answer = httpx.get(f"{section['url']}/api/v1/{path}", params=params, auth=auth, timeout=30).json()
    assert answer["status"] == "success", f"{path} {params}: {answer.get('error')}"
    return answer["data"]


def samples(section: Section, expression: str) -> list[dict[str, Any]]:
    """What an expression gives now: each series' labels and value."""
    result: list[dict[str, Any]] = get(section, "query", query=expression)["result"]
    return result


def values(section: Section, expression: str) -> list[str]:
    """The values alone, as Prometheus prints them."""
    return [sample["value"][1] for sample in samples(section, expression)]
