"""Messages of gRPC to the core's requests, and its answers to messages.

A message with a field that this version does not know is refused: a condition that is not understood would widen a
search, or a delete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from plinth.gateway import model
from plinth.gateway.errors import FieldViolation, GatewayError, invalid, invalid_filter
from plinth.gateway.grpc_api.structs import from_struct, to_struct
from plinth.gateway.validation import Model, validated
from plinth.vectors.v1 import vectors_pb2 as pb

DISTANCES: Mapping[int, str] = {
    pb.DISTANCE_COSINE: "Cosine",
    pb.DISTANCE_EUCLIDEAN: "Euclidean",
    pb.DISTANCE_DOT: "Dot",
    pb.DISTANCE_MANHATTAN: "Manhattan",
}
_NUMBERS = {name: number for number, name in DISTANCES.items()}


def known(message: Message, path: str = "") -> None:
    """Raise where a message has fields that its definition here lacks."""
    if len(UnknownFieldSet(message)):
        number = UnknownFieldSet(message)[0].field_number
        raise invalid(path or "message", f"field {number} is unknown to this version of the gateway")


def create_collection(request: pb.CreateCollectionRequest) -> model.CreateCollection:
    """A new collection."""
    content: dict[str, Any] = {
        "name": request.name,
        "dimension": request.dimension,
        "distance": DISTANCES.get(request.distance),
        "on_disk": request.on_disk,
    }
    if request.HasField("hnsw"):
        known(request.hnsw, "hnsw")
        content["hnsw"] = _optional(request.hnsw, "m", "ef_construct")
    return _validated(model.CreateCollection, content)


def collection(answer: model.Collection) -> pb.Collection:
    """A collection."""
    return pb.Collection(
        name=answer.name,
        dimension=answer.dimension,
        distance=pb.Distance.Name(_NUMBERS[answer.distance]),
        points=answer.points,
        shared=answer.shared,
    )


def point(message: pb.Point, *path: str | int) -> model.Point:
    """A point to write; ``path`` is where it stands in the request."""
    place = _path(*path)
    known(message, place)
    payload = from_struct(message.payload, f"{place}.payload")
    return _validated(model.Point, {"id": message.id, "vector": list(message.vector), "payload": payload}, path)


def search(request: pb.SearchRequest, *path: str | int) -> model.Search:
    """A search; ``path`` is where it stands in the request."""
    return _validated(model.Search, _query(request, path), path)


def hybrid_search(request: pb.HybridSearchRequest) -> model.HybridSearch:
    """A hybrid search."""
    content = {**_query(request, ()), **_optional(request, "text_field"), "text": request.text or None}
    return _validated(model.HybridSearch, content)


def get(request: pb.GetRequest) -> model.Get:
    """Points to read."""
    return _validated(model.Get, {"ids": list(request.ids), **_shown(request, ())})


def scroll(request: pb.ScrollRequest) -> model.Scroll:
    """A page to read."""
    content = {**_optional(request, "limit", "cursor"), **_filter_of(request, ()), **_shown(request, ())}
    return _validated(model.Scroll, content)


def batch_delete(request: pb.BatchDeleteRequest) -> model.DeletePoints:
    """Points to delete."""
    return _validated(model.DeletePoints, {"ids": list(request.ids) or None, **_filter_of(request, ())})


def stored_point(answer: model.StoredPoint) -> pb.Point:
    """A point as it is stored."""
    payload = to_struct(answer.payload) if answer.payload is not None else None
    return pb.Point(id=answer.id, vector=answer.vector, payload=payload)


def scored_points(answer: Iterable[model.Hit]) -> list[pb.ScoredPoint]:
    """The points that a search returns."""
    return [
        pb.ScoredPoint(
            id=hit.id,
            score=hit.score,
            vector=hit.vector,
            payload=to_struct(hit.payload) if hit.payload is not None else None,
        )
        for hit in answer
    ]


def filter_content(message: pb.Filter, path: str) -> dict[str, Any]:
    """A filter as :class:`plinth.gateway.filters.Filter` takes it, which checks and bounds it."""
    known(message, path)
    return {
        "match": {key: _match(match, f"{path}.match.{key}") for key, match in message.match.items()},
        "range": {key: _range(bounds, f"{path}.range.{key}") for key, bounds in message.range.items()},
        "nested": [_nested(nested, f"{path}.nested.{at}") for at, nested in enumerate(message.nested)],
        "is_empty": list(message.is_empty),
        **{
            name: [filter_content(inner, f"{path}.{name}.{at}") for at, inner in enumerate(getattr(message, name))]
            for name in ("must", "should", "must_not")
        },
    }


def renamed(error: GatewayError, core: str, own: str) -> GatewayError:
    """An error about a field that the protocol calls otherwise than the core."""

    def rename(text: str) -> str:
        return own + text.removeprefix(core) if text == core or text.startswith((f"{core}.", f"{core}:")) else text

    return GatewayError(
        error.kind,
        rename(error.message),
        violations=tuple(FieldViolation(rename(each.field), each.reason) for each in error.violations),
        retry_after_s=error.retry_after_s,
        too_large=error.too_large,
    )


def _validated(request: type[Model], content: Mapping[str, Any], path: tuple[str | int, ...] = ()) -> Model:
    try:
        return validated(request, content, path)
    except GatewayError as error:
        # What is wrong with the whole is wrong with the message.
        error = renamed(error, "body", "message")
        if isinstance(content.get("with_payload"), list):
            error = renamed(error, _path(*path, "with_payload"), _path(*path, "payload_fields"))
        raise error from None


def _path(*parts: str | int) -> str:
    return ".".join(map(str, parts))


def _match(message: pb.Match, path: str) -> Any:
    known(message, path)
    kind = message.WhichOneof("value")
    if kind is None:
        raise invalid_filter(path, "a match has a value")
    if kind != "any":
        return getattr(message, kind)
    known(message.any, path)
    return [*message.any.texts, *message.any.integers, *message.any.booleans]


def _range(message: pb.Range, path: str) -> dict[str, Any]:
    known(message, path)
    bounds: dict[str, Any] = {}
    for name in ("gt", "gte", "lt", "lte"):
        if message.HasField(name):
            bound = getattr(message, name)
            known(bound, f"{path}.{name}")
            kind = bound.WhichOneof("value")
            if kind is None:
                raise invalid_filter(f"{path}.{name}", "a bound is a number or a date")
            bounds[name] = getattr(bound, kind)
    return bounds


def _nested(message: pb.Nested, path: str) -> dict[str, Any]:
    known(message, path)
    return {"key": message.key, "filter": filter_content(message.filter, f"{path}.filter")}


def _query(request: pb.SearchRequest | pb.HybridSearchRequest, path: tuple[str | int, ...]) -> dict[str, Any]:
    content = _optional(request, "top_k", "score_threshold", "preset")
    if isinstance(request, pb.SearchRequest):
        content |= _optional(request, "text")
    if request.HasField("parameters"):
        content["parameters"] = from_struct(request.parameters, _path(*path, "parameters"))
    return {
        # A list that is empty is not sent: an empty vector is none.
        "vector": list(request.vector) or None,
        **content,
        **_filter_of(request, path),
        **_shown(request, path),
    }


def _filter_of(
    request: pb.SearchRequest | pb.HybridSearchRequest | pb.ScrollRequest | pb.BatchDeleteRequest,
    path: tuple[str | int, ...],
) -> dict[str, Any]:
    if not request.HasField("filter"):
        return {}
    return {"filter": filter_content(request.filter, _path(*path, "filter"))}


def _shown(
    request: pb.SearchRequest | pb.HybridSearchRequest | pb.ScrollRequest | pb.GetRequest, path: tuple[str | int, ...]
) -> dict[str, Any]:
    """What is returned of a point."""
    fields = list(request.payload_fields)
    if fields and request.HasField("with_payload") and not request.with_payload:
        raise invalid(_path(*path, "payload_fields"), "fields of the payload are asked for, and with_payload is false")
    payload = {"with_payload": fields} if fields else _optional(request, "with_payload")
    return {"with_vectors": request.with_vectors, **payload}


def _optional(message: Any, *names: str) -> dict[str, Any]:
    """Those of the fields that are set."""
    return {name: getattr(message, name) for name in names if message.HasField(name)}
