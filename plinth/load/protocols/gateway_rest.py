"""Operations of the gateway's REST API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from plinth.gateway.filters import Filter
from plinth.load.dataset import TOP
from plinth.load.protocols.base import EncodedAhead, unlike_others
from plinth.load.protocols.rest import PAGE, SHOWN, Request
from plinth.load.workload import QUERIES, Answer, Ask
from plinth.system.http_client import url_path


class GatewayRest(EncodedAhead[Request]):
    """The requests on one collection, by its name within the organisation; ``queries`` is (q, d)."""

    def __init__(self, collection: str, _: Mapping[str, Any], queries: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self._collection = url_path("v1", "collections", collection)
        self._queries = queries
        self._thresholds = unlike_others()

    def request(self, ask: Ask) -> Request:
        """Return an operation as it is sent; all searches differ, so that the cache answers none."""
        request = super().request(ask)
        if ask.name not in QUERIES or request.body is None:
            return request
        return replace(request, body=b'%s,"score_threshold":%d}' % (request.body[:-1], next(self._thresholds)))

    def encode(self, ask: Ask) -> Request:
        """Encode an operation."""
        match ask.name:
            case "search" | "filtered_search":
                return self._post("search", self._query(ask))
            case "hybrid_search":
                return self._post("search/hybrid", {**self._query(ask), "text": ask.word, "text_field": "word"})
            case "scroll":
                body = {"filter": _within(ask), "limit": PAGE, "with_payload": SHOWN}
                return self._post("points/scroll", body)
            case "get":
                return Request("GET", f"{self._collection}/points/{ask.ids[0]}", None)
            case "delete":
                return Request("DELETE", f"{self._collection}/points/{ask.ids[0]}", None)
            case _:
                return Request("PUT", f"{self._collection}/points", _json({"points": self._written(ask)}))

    def answer(self, ask: Ask, content: bytes) -> Answer:
        """Parse the body of a successful response."""
        if ask.name == "delete":
            return Answer(completed=True)
        result = orjson.loads(content)
        if ask.name == "get":
            return Answer([(int(result["id"]), {})])
        if ask.name in QUERIES or ask.name == "scroll":
            found = result["points" if ask.name == "scroll" else "hits"]
            return Answer([(int(point["id"]), point["payload"]) for point in found])
        return Answer(completed=result["count"] == len(ask.ids))

    def _post(self, path: str, body: Mapping[str, Any]) -> Request:
        return Request("POST", f"{self._collection}/{path}", _json(body))

    def _query(self, ask: Ask) -> dict[str, Any]:
        return {"vector": self._queries[ask.row], "top_k": TOP, "filter": _within(ask), "with_payload": SHOWN}

    def _written(self, ask: Ask) -> list[dict[str, Any]]:
        rows = len(self._queries)
        return [
            {
                "id": str(identifier),
                "vector": self._queries[(ask.row + offset) % rows],
                "payload": {"model": "scratch", "word": "scratch"},
            }
            for offset, identifier in enumerate(ask.ids)
        ]


def _within(ask: Ask) -> dict[str, Any]:
    return Filter(match={"org_id": ask.tenant, **ask.conditions}).model_dump(exclude_unset=True)


def _json(body: Any) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
