"""Operations of Qdrant's REST API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from plinth.load.dataset import TOP
from plinth.load.protocols.base import EncodedAhead
from plinth.load.workload import QUERIES, Answer, Ask
from plinth.qdrant.client import collection_path

PAGE = 20
SHOWN = ["org_id", "model"]


@dataclass(frozen=True)
class Request:
    """Method, path and encoded body."""

    method: str
    path: str
    body: bytes | None


class Rest(EncodedAhead[Request]):
    """The requests on one collection; ``queries`` is (q, d)."""

    def __init__(self, collection: str, params: Mapping[str, Any], queries: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self._points = f"{collection_path(collection)}/points"
        self._params = params
        self._queries = queries

    def encode(self, ask: Ask) -> Request:
        """Encode an operation."""
        match ask.name:
            case "search" | "filtered_search":
                body = {**self._nearest(ask), "filter": within(ask.tenant, ask.conditions), "with_payload": SHOWN}
                return self._post("query", body)
            case "hybrid_search":
                return self._post("query", self._hybrid(ask))
            case "scroll":
                body = {"filter": within(ask.tenant), "limit": PAGE, "with_payload": True}
                return self._post("scroll", body)
            case "get":
                return Request("GET", f"{self._points}/{ask.ids[0]}", None)
            case "delete":
                return self._post("delete?wait=true", {"points": list(ask.ids)})
            case _:
                return Request("PUT", f"{self._points}?wait=true", _json({"points": self._written(ask)}))

    def answer(self, ask: Ask, content: bytes) -> Answer:
        """Parse the body of a 200 response."""
        result = orjson.loads(content)["result"]
        if ask.name == "get":
            return Answer([(result["id"], {})])
        if ask.name in QUERIES or ask.name == "scroll":
            return Answer([(point["id"], point["payload"]) for point in result["points"]])
        return Answer(completed=result["status"] == "completed")

    def _post(self, path: str, body: Mapping[str, Any]) -> Request:
        return Request("POST", f"{self._points}/{path}", _json(body))

    def _nearest(self, ask: Ask) -> dict[str, Any]:
        return {"query": self._queries[ask.row], "limit": TOP, "params": self._params}

    def _hybrid(self, ask: Ask) -> dict[str, Any]:
        nearest = {**self._nearest(ask), "limit": 2 * TOP}
        words = {"must": [*within(ask.tenant)["must"], {"key": "word", "match": {"text": ask.word}}]}
        return {
            "prefetch": [{**nearest, "filter": within(ask.tenant)}, {**nearest, "filter": words}],
            "query": {"fusion": "rrf"},
            "limit": TOP,
            "with_payload": SHOWN,
        }

    def _written(self, ask: Ask) -> list[dict[str, Any]]:
        payload = {"org_id": ask.tenant, "model": "scratch", "word": "scratch"}
        rows = len(self._queries)
        return [
            {"id": identifier, "vector": self._queries[(ask.row + offset) % rows], "payload": payload}
            for offset, identifier in enumerate(ask.ids)
        ]


def within(tenant: str, conditions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return Qdrant's filter for a tenant, and for more values within it."""
    wanted = {"org_id": tenant, **(conditions or {})}
    return {"must": [{"key": key, "match": {"value": value}} for key, value in wanted.items()]}


def _json(body: Any) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
