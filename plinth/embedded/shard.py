"""The operations on one collection's shard. One thread calls this, one operation after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qdrant_edge as edge

from plinth.embedded.errors import MISTAKES, ApiError, from_edge, from_mistake, malformed, refused
from plinth.embedded.filters import filter_from, filter_of, point_id
from plinth.embedded.queries import limit_of, order_by, query_request, record, scored, vector, with_payload
from plinth.embedded.schema import index

GROUP_ROUNDS = 6


def write(shard: edge.EdgeShard, operation: str, body: Any) -> None:
    """Carry out one writing operation; raises :class:`ApiError`, and then nothing was written."""
    if operation == "batch":
        operations = [_single(entry) for entry in _list(body, "operations")]
        prepared = [update for kind, inner in operations for update in _updates(kind, inner)]
    else:
        prepared = _updates(operation, body)
    try:
        for update in prepared:
            shard.update(update)
    except Exception as error:
        raise from_edge(error) from error


def read(shard: edge.EdgeShard, operation: str, body: Any) -> Any:
    """Carry out one reading operation; the result is ready for JSON."""
    if not isinstance(body, dict):
        raise malformed("the body is an object")
    try:
        return READS[operation](shard, body)
    except ApiError:
        raise
    except MISTAKES as error:
        raise from_mistake(error) from error
    except Exception as error:
        raise from_edge(error) from error


def dimensions(config: Mapping[str, Any]) -> dict[str, int]:
    """The size of each single dense vector by name; the unnamed one is the empty name."""
    vectors = config["params"]["vectors"]
    named = {"": vectors} if "size" in vectors else vectors
    return {name: params["size"] for name, params in named.items() if not params.get("multivector_config")}


def check_dimensions(points: list[dict[str, Any]], sizes: Mapping[str, int]) -> None:
    """Refuse a whole batch for one wrong vector, before anything is written (S4-06)."""
    for point in points:
        value = point.get("vector")
        for name, inner in (value if isinstance(value, dict) else {"": value}).items():
            if name in sizes and isinstance(inner, list) and len(inner) != sizes[name]:
                raise ApiError(
                    400, f"Wrong input: Vector dimension error: expected dim: {sizes[name]}, got {len(inner)}"
                )


def points_of(body: Any) -> list[dict[str, Any]]:
    """The points of an upsert, whether listed or in columns."""
    if isinstance(body, dict) and "batch" in body:
        columns = body["batch"]
        ids, vectors = columns.get("ids") or [], columns.get("vectors")
        payloads = columns.get("payloads") or [None] * len(ids)
        named = isinstance(vectors, dict)
        rows = (
            [dict(zip(vectors, row, strict=True)) for row in zip(*vectors.values(), strict=True)] if named else vectors
        )
        if not isinstance(rows, list) or len(rows) != len(ids) or len(payloads) != len(ids):
            raise ApiError(422, "Validation error in JSON body: [batch: ids, vectors and payloads differ in length]")
        return [{"id": i, "vector": v, "payload": p} for i, v, p in zip(ids, rows, payloads, strict=True)]
    return _list(body, "points")


def _updates(kind: str, body: Any) -> list[Any]:
    try:
        return WRITES[kind](body)
    except MISTAKES as error:
        raise from_mistake(error) from error


def _single(entry: Any) -> tuple[str, Any]:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise malformed("an operation of a batch is an object with one key")
    ((kind, body),) = entry.items()
    if kind not in WRITES:
        raise malformed(f"unknown operation '{kind}', expected one of {', '.join(WRITES)}")
    return kind, body


def _list(body: Any, key: str) -> list[Any]:
    if not isinstance(body, dict) or not isinstance(body.get(key), list):
        raise malformed(f"missing field `{key}`")
    found: list[Any] = body[key]
    return found


def _upsert(body: Any) -> list[Any]:
    if body.get("shard_key") is not None:
        raise refused("shard keys")
    # Within one request the last of two points with one id wins; the wheel would keep the first's payload.
    points = {point_id(point["id"]): point for point in points_of(body)}
    found = [edge.Point(i, vector(point["vector"]), point.get("payload") or {}) for i, point in points.items()]
    return [edge.UpdateOperation.upsert_points(found, filter_of(body.get("update_filter")))] if found else []


def _delete(body: Any) -> list[Any]:
    if "filter" in body:
        return [edge.UpdateOperation.delete_points_by_filter(filter_from(body["filter"]))]
    return [edge.UpdateOperation.delete_points(_ids(body))]


def _payload(verb: str) -> Callable[[Any], list[Any]]:
    def operation(body: Any) -> list[Any]:
        if body.get("points") is not None:
            return [getattr(edge.UpdateOperation, verb)(_ids(body), body["payload"], body.get("key"))]
        condition = filter_from(body["filter"])
        return [getattr(edge.UpdateOperation, f"{verb}_by_filter")(condition, body["payload"], body.get("key"))]

    return operation


def _delete_payload(body: Any) -> list[Any]:
    if body.get("points") is not None:
        return [edge.UpdateOperation.delete_payload(_ids(body), body["keys"])]
    return [edge.UpdateOperation.delete_payload_by_filter(filter_from(body["filter"]), body["keys"])]


def _clear_payload(body: Any) -> list[Any]:
    if body.get("points") is not None:
        return [edge.UpdateOperation.clear_payload(_ids(body))]
    return [edge.UpdateOperation.clear_payload_by_filter(filter_from(body["filter"]))]


def _update_vectors(body: Any) -> list[Any]:
    vectors = [edge.PointVectors(point_id(point["id"]), vector(point["vector"])) for point in _list(body, "points")]
    return [edge.UpdateOperation.update_vectors(vectors)]


def _delete_vectors(body: Any) -> list[Any]:
    names = body["vector"]
    if body.get("points") is not None:
        return [edge.UpdateOperation.delete_vectors(_ids(body), names)]
    return [edge.UpdateOperation.delete_vectors_by_filter(filter_from(body["filter"]), names)]


def _create_index(body: Any) -> list[Any]:
    return [edge.UpdateOperation.create_field_index(body["field_name"], index(body["field_schema"]))]


def _delete_index(body: Any) -> list[Any]:
    return [edge.UpdateOperation.delete_field_index(body["field_name"])]


def _ids(body: Any) -> list[Any]:
    return [point_id(value) for value in _list(body, "points")]


def _retrieve(shard: edge.EdgeShard, body: dict[str, Any]) -> Any:
    found = shard.retrieve(
        _unique_ids(body), with_payload(body.get("with_payload", True)), body.get("with_vector") or False
    )
    return [record(point) for point in found]


def _unique_ids(body: dict[str, Any]) -> list[Any]:
    return list(dict.fromkeys(point_id(value) for value in _list(body, "ids")))


def _scroll(shard: edge.EdgeShard, body: dict[str, Any]) -> Any:
    offset = body.get("offset")
    points, following = shard.scroll(
        edge.ScrollRequest(
            offset=None if offset is None else point_id(offset),
            limit=limit_of(body),
            filter=filter_of(body.get("filter")),
            with_payload=with_payload(body.get("with_payload", True)),
            with_vector=body.get("with_vector") or False,
            order_by=order_by(body["order_by"]) if body.get("order_by") else None,
        )
    )
    return {"points": [record(point) for point in points], "next_page_offset": following}


def _count(shard: edge.EdgeShard, body: dict[str, Any]) -> Any:
    exact = body.get("exact")
    request = edge.CountRequest(filter=filter_of(body.get("filter")), exact=True if exact is None else bool(exact))
    return {"count": shard.count(request)}


def _query(shard: edge.EdgeShard, body: dict[str, Any]) -> Any:
    return {"points": _hits(shard, body)}


def _hits(shard: edge.EdgeShard, body: dict[str, Any]) -> list[Any]:
    if body.get("query") is None and not body.get("prefetch"):
        return [{**point, "version": 0, "score": 0.0} for point in _scroll(shard, _as_scroll(body))["points"]]
    return [scored(point) for point in shard.query(query_request(body, lambda i, using: _stored(shard, i, using)))]


def _as_scroll(body: dict[str, Any]) -> dict[str, Any]:
    return {"filter": body.get("filter"), "limit": limit_of(body), "with_payload": body.get("with_payload", False)}


def _query_batch(shard: edge.EdgeShard, body: dict[str, Any]) -> Any:
    return [_query(shard, search) for search in _list(body, "searches")]


def _query_groups(shard: edge.EdgeShard, body: dict[str, Any]) -> Any:
    """Read ever more hits until there are enough groups, as many as each may hold."""
    key, size, wanted = body["group_by"], int(body.get("group_size") or 3), limit_of(body)
    selected = body.get("with_payload", False)
    limit = wanted * size * 2
    for _ in range(GROUP_ROUNDS):
        hits = _hits(shard, {**body, "limit": limit, "with_payload": True})
        groups = _grouped(hits, key, size)
        enough = len(groups) >= wanted and all(len(group) == size for group in list(groups.values())[:wanted])
        if enough or len(hits) < limit:
            break
        limit *= 4
    chosen = list(groups.items())[:wanted]
    return {"groups": [{"id": value, "hits": [_selected(hit, selected) for hit in group]} for value, group in chosen]}


def _grouped(hits: list[Any], key: str, size: int) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for hit in hits:
        value = hit["payload"].get(key)
        for single in value if isinstance(value, list) else [value]:
            if isinstance(single, str | int) and len(groups.setdefault(single, [])) < size:
                groups[single].append(hit)
    return groups


def _selected(hit: dict[str, Any], selector: Any) -> dict[str, Any]:
    if selector is True:
        return hit
    bare = {name: value for name, value in hit.items() if name != "payload"}
    if not selector:
        return bare
    wanted = selector.get("include") if isinstance(selector, dict) else selector
    dropped = selector.get("exclude", []) if isinstance(selector, dict) else []
    kept = {k: v for k, v in hit["payload"].items() if (wanted is None or k in wanted) and k not in dropped}
    return {**bare, "payload": kept}


def _facet(shard: edge.EdgeShard, body: dict[str, Any]) -> Any:
    request = edge.FacetRequest(
        key=body["key"], limit=limit_of(body), exact=bool(body.get("exact")), filter=filter_of(body.get("filter"))
    )
    return {"hits": [{"value": hit.value, "count": hit.count} for hit in shard.facet(request).hits]}


def _stored(shard: edge.EdgeShard, identifier: Any, using: str) -> Any:
    points = shard.retrieve([identifier], False, [using] if using else True)
    if not points:
        raise ApiError(404, f"Not found: No point with id {identifier} found")
    value = points[0].vector
    return value[using] if isinstance(value, dict) else value


WRITES: dict[str, Callable[[Any], list[Any]]] = {
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
READS: dict[str, Callable[[edge.EdgeShard, dict[str, Any]], Any]] = {
    "retrieve": _retrieve,
    "scroll": _scroll,
    "count": _count,
    "query": _query,
    "query_batch": _query_batch,
    "query_groups": _query_groups,
    "facet": _facet,
}
