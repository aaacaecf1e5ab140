"""Operations of Qdrant's gRPC API, with the messages of the official client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import grpc

from plinth.load.dataset import TOP
from plinth.load.protocols.base import EncodedAhead
from plinth.load.protocols.rest import PAGE, SHOWN
from plinth.load.workload import QUERIES, Answer, Ask


@dataclass(frozen=True)
class Request:
    """A method of the Points service and its message."""

    method: str
    message: Any


class Grpc(EncodedAhead[Request]):
    """The requests on one collection; ``queries`` is (q, d)."""

    def __init__(self, collection: str, params: Mapping[str, Any], queries: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self._collection = collection
        quantization = grpc.QuantizationSearchParams(**params.get("quantization", {}))
        self._params = grpc.SearchParams(hnsw_ef=params.get("hnsw_ef"), quantization=quantization)
        self._queries = [row.tolist() for row in queries]
        self._shown = grpc.WithPayloadSelector(include=grpc.PayloadIncludeSelector(fields=SHOWN))

    def encode(self, ask: Ask) -> Request:
        """Encode an operation as a message."""
        match ask.name:
            case "search" | "filtered_search":
                condition = _within({"org_id": ask.tenant, **ask.conditions})
                message = self._query(query=self._nearest(ask), filter=condition, params=self._params)
                return Request("Query", message)
            case "hybrid_search":
                return Request("Query", self._hybrid(ask))
            case "scroll":
                return Request("Scroll", self._scroll(ask))
            case "get":
                return Request("Get", grpc.GetPoints(collection_name=self._collection, ids=_ids(ask)))
            case "delete":
                points = grpc.PointsSelector(points=grpc.PointsIdsList(ids=_ids(ask)))
                return Request("Delete", grpc.DeletePoints(collection_name=self._collection, wait=True, points=points))
            case _:
                return Request("Upsert", self._upsert(ask))

    def answer(self, ask: Ask, message: Any) -> Answer:
        """Parse a response."""
        if ask.name in QUERIES or ask.name in ("get", "scroll"):
            return Answer([(point.id.num, _texts(point.payload)) for point in message.result])
        return Answer(completed=message.result.status == grpc.UpdateStatus.Completed)

    def _query(self, **parts: Any) -> Any:
        return grpc.QueryPoints(collection_name=self._collection, limit=TOP, with_payload=self._shown, **parts)

    def _nearest(self, ask: Ask) -> Any:
        vector = grpc.VectorInput(dense=grpc.DenseVector(data=self._queries[ask.row]))
        return grpc.Query(nearest=vector)

    def _hybrid(self, ask: Ask) -> Any:
        word = grpc.Condition(field=grpc.FieldCondition(key="word", match=grpc.Match(text=ask.word or "")))
        both = _within({"org_id": ask.tenant})
        both.must.append(word)
        prefetch = [
            grpc.PrefetchQuery(query=self._nearest(ask), filter=condition, params=self._params, limit=2 * TOP)
            for condition in (_within({"org_id": ask.tenant}), both)
        ]
        return self._query(prefetch=prefetch, query=grpc.Query(fusion=grpc.Fusion.RRF))

    def _scroll(self, ask: Ask) -> Any:
        everything = grpc.WithPayloadSelector(enable=True)
        condition = _within({"org_id": ask.tenant})
        return grpc.ScrollPoints(
            collection_name=self._collection, filter=condition, limit=PAGE, with_payload=everything
        )

    def _upsert(self, ask: Ask) -> Any:
        payload = {
            key: grpc.Value(string_value=value)
            for key, value in (("org_id", ask.tenant), ("model", "scratch"), ("word", "scratch"))
        }
        points = []
        for offset, identifier in enumerate(ask.ids):
            row = self._queries[(ask.row + offset) % len(self._queries)]
            vectors = grpc.Vectors(vector=grpc.Vector(dense=grpc.DenseVector(data=row)))
            points.append(grpc.PointStruct(id=grpc.PointId(num=identifier), vectors=vectors, payload=payload))
        return grpc.UpsertPoints(collection_name=self._collection, wait=True, points=points)


def _ids(ask: Ask) -> list[Any]:
    return [grpc.PointId(num=identifier) for identifier in ask.ids]


def _within(wanted: Mapping[str, str]) -> Any:
    return grpc.Filter(
        must=[
            grpc.Condition(field=grpc.FieldCondition(key=key, match=grpc.Match(keyword=value)))
            for key, value in wanted.items()
        ]
    )


def _texts(payload: Mapping[str, Any]) -> dict[str, str]:
    return {key: value.string_value for key, value in payload.items()}
