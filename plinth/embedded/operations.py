"""The operations on one collection's shard. One thread calls this, one operation after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qdrant_edge as edge

from plinth.embedded.errors import MISTAKES, ApiError, from_edge, from_mistake, invalid
from plinth.embedded.filters import filter_from, filter_of
from plinth.embedded.groups import grouped
from plinth.embedded.queries import (
    MissingVector,
    Space,
    check_stages,
    limit_of,
    offset_of,
    order_by,
    query_request,
    record,
    scored,
    with_payload,
    with_vector,
)
from plinth.embedded.schema import index
from plinth.embedded.vectors import Vectors


def write(shard: edge.EdgeShard, operation: str, body: Any, vectors: Vectors) -> None:
    """Carry out one checked writing operation; raises :class:`ApiError`.

    Of a batch whose later operation finds no point the earlier ones stay, as a real server does it.
    """
    operations = [(operation, body)]
    if operation == "batch":
        operations = [next(iter(entry.items())) for entry in body["operations"]]
    prepared = [update for kind, inner in operations for update in _updates(kind, inner, vectors)]
    try:
        for update in prepared:
            shard.update(update)
    except Exception as error:
        raise from_edge(error) from error


def read(shard: edge.EdgeShard, operation: str, body: Any, vectors: Vectors) -> Any:
    """Carry out one checked reading operation; the result is ready for JSON."""
    try:
        return READS[operation](shard, body, vectors)
    except ApiError:
        raise
    except MISTAKES as error:
        raise from_mistake(error) from error
    except Exception as error:
        raise from_edge(error) from error


def points_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of an upsert, whether listed or in columns."""
    if "batch" not in body:
        listed: list[dict[str, Any]] = body["points"]
        return listed
    columns = body["batch"]
    ids, vectors, payloads = columns["ids"], columns["vectors"], columns.get("payloads")
    named = vectors if isinstance(vectors, dict) else {"": vectors}
    if any(len(column) != len(ids) for column in [*named.values(), *([] if payloads is None else [payloads])]):
        raise invalid("batch: ids, vectors and payloads differ in length")
    rows = (
        [{name: column[i] for name, column in vectors.items()} for i in range(len(ids))]
        if named is vectors
        else vectors
    )
    return [
        {"id": identifier, "vector": row, "payload": payload}
        for identifier, row, payload in zip(ids, rows, payloads or [None] * len(ids), strict=True)
    ]


def _updates(kind: str, body: Any, vectors: Vectors) -> list[Any]:
    try:
        return WRITES[kind](body, vectors)
    except MISTAKES as error:
        raise from_mistake(error) from error


def _upsert(body: Any, vectors: Vectors) -> list[Any]:
    # Within one request the last of two points with one id wins; the wheel would keep the first's payload.
    given = points_of(body)
    if not given:
        raise ApiError(400, "Bad request: Empty update request")
    points = {
        point["id"]: edge.Point(point["id"], vectors.stored(point["vector"]), point.get("payload") or {})
        for point in given
    }
    mode = _MODES[body.get("update_mode") or "upsert"]
    return [edge.UpdateOperation.upsert_points(list(points.values()), filter_of(body.get("update_filter")), mode)]


def _delete(body: Any, _vectors: Vectors) -> list[Any]:
    if body.get("points") is not None:
        return [edge.UpdateOperation.delete_points(body["points"])]
    return [edge.UpdateOperation.delete_points_by_filter(filter_from(body["filter"]))]


def _payload(verb: str) -> Callable[[Any, Vectors], list[Any]]:
    def operation(body: Any, _vectors: Vectors) -> list[Any]:
        if body.get("points") is not None:
            return [getattr(edge.UpdateOperation, verb)(body["points"], body["payload"], body.get("key"))]
        condition = filter_from(body["filter"])
        return [getattr(edge.UpdateOperation, f"{verb}_by_filter")(condition, body["payload"], body.get("key"))]

    return operation


def _delete_payload(body: Any, _vectors: Vectors) -> list[Any]:
    if body.get("points") is not None:
        return [edge.UpdateOperation.delete_payload(body["points"], body["keys"])]
    return [edge.UpdateOperation.delete_payload_by_filter(filter_from(body["filter"]), body["keys"])]


def _clear_payload(body: Any, _vectors: Vectors) -> list[Any]:
    if body.get("points") is not None:
        return [edge.UpdateOperation.clear_payload(body["points"])]
    return [edge.UpdateOperation.clear_payload_by_filter(filter_from(body["filter"]))]


def _update_vectors(body: Any, vectors: Vectors) -> list[Any]:
    updates = []
    for point in body["points"]:
        if not point["vector"]:
            raise invalid("points.vector: must specify vectors to update for point")
        updates.append(edge.PointVectors(point["id"], vectors.stored(point["vector"])))
    return [edge.UpdateOperation.update_vectors(updates)]


def _delete_vectors(body: Any, vectors: Vectors) -> list[Any]:
    names = body["vector"]
    vectors.check_selected(names)
    if body.get("points") is not None:
        return [edge.UpdateOperation.delete_vectors(body["points"], names)]
    return [edge.UpdateOperation.delete_vectors_by_filter(filter_from(body["filter"]), names)]


def _create_index(body: Any, _vectors: Vectors) -> list[Any]:
    return [edge.UpdateOperation.create_field_index(body["field_name"], index(body["field_schema"]))]


def _delete_index(body: Any, _vectors: Vectors) -> list[Any]:
    return [edge.UpdateOperation.delete_field_index(body["field_name"])]


def _retrieve(shard: edge.EdgeShard, body: dict[str, Any], vectors: Vectors) -> Any:
    vectors.check_selected(body.get("with_vector"))
    ids = list(dict.fromkeys(body["ids"]))
    return [record(p) for p in shard.retrieve(ids, with_payload(body.get("with_payload")), with_vector(body))]


def _scroll(shard: edge.EdgeShard, body: dict[str, Any], vectors: Vectors) -> Any:
    if body.get("order_by") and body.get("offset") is not None:
        raise ApiError(400, "Wrong input: Cannot use an `offset` when using `order_by`")
    selector = body.get("with_payload")
    points, following = _page(shard, body, vectors, limit_of(body), True if selector is None else selector)
    return {"points": [record(point) for point in points], "next_page_offset": following}


def _page(
    shard: edge.EdgeShard, body: dict[str, Any], vectors: Vectors, limit: int, selector: Any
) -> tuple[list[Any], Any]:
    vectors.check_selected(body.get("with_vector"))
    return shard.scroll(
        edge.ScrollRequest(
            offset=body.get("offset"),
            limit=limit,
            filter=filter_of(body.get("filter")),
            with_payload=with_payload(selector),
            with_vector=with_vector(body),
            order_by=order_by(body["order_by"]) if body.get("order_by") else None,
        )
    )


def _count(shard: edge.EdgeShard, body: dict[str, Any], _vectors: Vectors) -> Any:
    request = edge.CountRequest(filter=filter_of(body.get("filter")), exact=body.get("exact", True))
    return {"count": shard.count(request)}


def _query(shard: edge.EdgeShard, body: dict[str, Any], vectors: Vectors) -> Any:
    return {"points": hits(shard, body, vectors)}


def hits(shard: edge.EdgeShard, body: dict[str, Any], vectors: Vectors) -> list[Any]:
    """The scored points of a query."""
    check_stages(body)
    if body.get("query") is None:
        # Without a query the points come by their ids; the wheel's scroll knows no number to pass over.
        offset = offset_of(body)
        scrolled = {**body, "offset": None}
        points, _ = _page(shard, scrolled, vectors, offset + limit_of(body), body.get("with_payload", False))
        return [{**record(point), "version": 0, "score": 1.0} for point in points[offset:]]
    space = Space(vectors, lambda identifier, using: _stored(shard, identifier, using))
    points = [scored(point) for point in shard.query(query_request(body, space))]
    if not body.get("with_vector"):
        # The wheel leaves those in that its mmr has read.
        for point in points:
            point.pop("vector", None)
    return points


def _query_batch(shard: edge.EdgeShard, body: dict[str, Any], vectors: Vectors) -> Any:
    return [_query(shard, search, vectors) for search in body["searches"]]


def _query_groups(shard: edge.EdgeShard, body: dict[str, Any], vectors: Vectors) -> Any:
    most = max(1, shard.info().points_count)
    return {"groups": grouped(lambda search: hits(shard, search, vectors), body, most)}


def _facet(shard: edge.EdgeShard, body: dict[str, Any], _vectors: Vectors) -> Any:
    request = edge.FacetRequest(
        key=body["key"], limit=limit_of(body), exact=bool(body.get("exact")), filter=filter_of(body.get("filter"))
    )
    return {"hits": [{"value": hit.value, "count": hit.count} for hit in shard.facet(request).hits]}


def _stored(shard: edge.EdgeShard, identifier: Any, using: str) -> Any:
    points = shard.retrieve([identifier], False, [using] if using else True)
    if not points:
        raise ApiError(404, f"Not found: No point with id {identifier} found")
    value = points[0].vector
    stored = value.get(using) if isinstance(value, dict) else value
    if stored is None:
        raise MissingVector(identifier, using)
    return stored


_MODES = {
    "upsert": edge.UpdateMode.Upsert,
    "insert_only": edge.UpdateMode.InsertOnly,
    "update_only": edge.UpdateMode.UpdateOnly,
}
WRITES: dict[str, Callable[[Any, Vectors], list[Any]]] = {
    "upsert": _upsert,
    "delete": _delete,
    "set_payload": _payload("set_payload"),
    "overwrite_payload": _payload("overwrite_payload"),
    "delete_payload": _delete_payload,
    "clear_payload": _clear_payload,
    "update_vectors": _update_vectors,
    "delete_vectors": _delete_vectors,
    "create_index": _create_index,
    "delete_index": _delete_index,
}
READS: dict[str, Callable[[edge.EdgeShard, dict[str, Any], Vectors], Any]] = {
    "retrieve": _retrieve,
    "scroll": _scroll,
    "count": _count,
    "query": _query,
    "query_batch": _query_batch,
    "query_groups": _query_groups,
    "facet": _facet,
}
