"""Operations of the gateway's gRPC API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.struct_pb2 import Struct

from plinth.load.dataset import TOP
from plinth.load.protocols.base import EncodedAhead, unlike_others
from plinth.load.protocols.grpc import Request
from plinth.load.protocols.rest import PAGE, SHOWN
from plinth.load.workload import QUERIES, Answer, Ask
from plinth.vectors.v1 import vectors_pb2 as pb


class GatewayGrpc(EncodedAhead[Request]):
    """The requests on one collection, by its name within the organisation; ``queries`` is (q, d)."""

    def __init__(self, collection: str, _: Mapping[str, Any], queries: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self._collection = collection
        self._queries = [row.tolist() for row in queries]
        self._thresholds = unlike_others()

    def request(self, ask: Ask) -> Request:
        """Return an operation as it is sent; all searches differ, so that the cache answers none."""
        request = super().request(ask)
        if ask.name not in QUERIES:
            return request
        message = type(request.message)()
        message.CopyFrom(request.message)
        message.score_threshold = next(self._thresholds)
        return Request(request.method, message)

    def encode(self, ask: Ask) -> Request:
        """Encode an operation as a message."""
        match ask.name:
            case "search" | "filtered_search":
                return Request("Search", pb.SearchRequest(**self._query(ask)))
            case "hybrid_search":
                message = pb.HybridSearchRequest(**self._query(ask), text=ask.word, text_field="word")
                return Request("HybridSearch", message)
            case "scroll":
                shown: dict[str, Any] = {"limit": PAGE, "payload_fields": SHOWN}
                return Request("Scroll", pb.ScrollRequest(**self._of(), filter=_within(ask), **shown))
            case "get":
                return Request("Get", pb.GetRequest(**self._of(), ids=[str(ask.ids[0])]))
            case "delete":
                return Request("Delete", pb.DeleteRequest(**self._of(), id=str(ask.ids[0])))
            case "upsert":
                return Request("Upsert", pb.UpsertRequest(**self._of(), point=self._points(ask)[0]))
            case _:
                return Request("BatchUpsert", pb.BatchUpsertRequest(**self._of(), points=self._points(ask)))

    def answer(self, ask: Ask, message: Any) -> Answer:
        """Parse a response."""
        if ask.name in QUERIES or ask.name in ("get", "scroll"):
            return Answer([(int(point.id), _texts(point.payload)) for point in message.points])
        if ask.name == "upsert_batch_100":
            return Answer(completed=message.upserted == len(ask.ids))
        return Answer(completed=True)

    def _of(self) -> dict[str, Any]:
        return {"collection": self._collection}

    def _query(self, ask: Ask) -> dict[str, Any]:
        query = {"vector": self._queries[ask.row], "top_k": TOP, "payload_fields": SHOWN}
        return {**self._of(), **query, "filter": _within(ask)}

    def _points(self, ask: Ask) -> list[Any]:
        payload = Struct()
        payload.update({"model": "scratch", "word": "scratch"})
        rows = len(self._queries)
        return [
            pb.Point(id=str(identifier), vector=self._queries[(ask.row + offset) % rows], payload=payload)
            for offset, identifier in enumerate(ask.ids)
        ]


def _within(ask: Ask) -> Any:
    values = {"org_id": ask.tenant, **ask.conditions}
    return pb.Filter(match={key: pb.Match(text=value) for key, value in values.items()})


def _texts(payload: Any) -> dict[str, str]:
    return {key: value.string_value for key, value in payload.fields.items()}
