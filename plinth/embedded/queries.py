"""Queries of the REST API as the wheel's requests, and its answers as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import qdrant_edge as edge

from plinth.embedded.errors import ApiError, malformed, refused
from plinth.embedded.filters import filter_of, point_id

DEFAULT_LIMIT = 10
Lookup = Callable[[Any, str], Any]
"""From a point id and a vector's name to the stored vector."""


def limit_of(body: dict[str, Any], default: int = DEFAULT_LIMIT) -> int:
    """The number of results asked for, at least 1."""
    limit = body.get("limit", default)
    if limit is None:
        return default
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise malformed(f"limit: invalid type, expected an integer, got {limit!r}")
    if limit < 1:
        raise ApiError(422, f"Validation error in JSON body: [limit: value {limit} invalid, must be 1 or larger]")
    return limit


def query_request(body: dict[str, Any], lookup: Lookup) -> edge.QueryRequest:
    """A `points/query` body."""
    for key in ("lookup_from", "shard_key"):
        if body.get(key) is not None:
            raise refused(f"'{key}'")
    using = body.get("using") or ""
    query, excluded = _scoring(body.get("query"), using, lookup)
    condition = filter_of(body.get("filter"))
    if excluded:
        condition = edge.Filter(must=[condition] if condition else None, must_not=[edge.HasIdCondition(set(excluded))])
    return edge.QueryRequest(
        limit=limit_of(body),
        offset=int(body.get("offset") or 0),
        query=query,
        prefetches=_prefetches(body.get("prefetch"), lookup),
        filter=condition,
        score_threshold=body.get("score_threshold"),
        params=search_params(body.get("params")),
        with_payload=with_payload(body.get("with_payload", False)),
        with_vector=body.get("with_vector", False) or False,
    )


def search_params(body: dict[str, Any] | None) -> edge.SearchParams | None:
    """A query's `params`."""
    if not body:
        return None
    quantization = body.get("quantization")
    return edge.SearchParams(
        hnsw_ef=body.get("hnsw_ef"),
        exact=bool(body.get("exact")),
        indexed_only=bool(body.get("indexed_only")),
        quantization=edge.QuantizationSearchParams(
            ignore=bool(quantization.get("ignore")),
            rescore=quantization.get("rescore"),
            oversampling=quantization.get("oversampling"),
        )
        if quantization
        else None,
    )


def with_payload(body: Any) -> Any:
    """The payload selector: all, none, some fields, or all but some."""
    if isinstance(body, dict):
        if "include" in body:
            return edge.PayloadSelector.Include(body["include"])
        return edge.PayloadSelector.Exclude(body["exclude"])
    return body if body is not None else False


def vector(value: Any) -> Any:
    """A vector as the wheel takes it: dense, multi, sparse or named ones; numbers must be finite."""
    if isinstance(value, list):
        if value and isinstance(value[0], list):
            return [vector(inner) for inner in value]
        try:
            finite = math.isfinite(math.fsum(value))
        except (TypeError, OverflowError):
            finite = False
        if not finite:
            raise malformed("a vector holds finite numbers only")
        return value
    if isinstance(value, dict):
        if set(value) == {"indices", "values"}:
            return edge.SparseVector(value["indices"], value["values"])
        if isinstance(value.get("model"), str):
            raise refused("inference; send vectors")
        return {name: vector(inner) for name, inner in value.items()}
    raise malformed(f"{value!r} is not a vector")


def order_by(body: Any) -> edge.OrderBy:
    """An `order_by`: a key, or an object."""
    if isinstance(body, str):
        return edge.OrderBy(body)
    direction = {"asc": edge.Direction.Asc, "desc": edge.Direction.Desc, None: None}[body.get("direction")]
    return edge.OrderBy(body["key"], direction, body.get("start_from"))


def scored(point: Any) -> dict[str, Any]:
    """A hit as JSON."""
    found = {"id": point.id, "version": point.version, "score": point.score}
    return _with_parts(found, point)


def record(point: Any) -> dict[str, Any]:
    """A stored point as JSON."""
    return _with_parts({"id": point.id}, point)


def _with_parts(found: dict[str, Any], point: Any) -> dict[str, Any]:
    if point.payload is not None:
        found["payload"] = point.payload
    if point.vector is not None:
        found["vector"] = _plain(point.vector)
    if point.order_value is not None:
        found["order_value"] = point.order_value
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, edge.SparseVector):
        return {"indices": value.indices, "values": value.values}
    return value


def _prefetches(body: Any, lookup: Lookup) -> list[edge.Prefetch] | None:
    if not body:
        return None
    found = []
    for inner in [body] if isinstance(body, dict) else body:
        query, _ = _scoring(inner.get("query"), inner.get("using") or "", lookup)
        found.append(
            edge.Prefetch(
                limit=limit_of(inner),
                query=query,
                prefetches=_prefetches(inner.get("prefetch"), lookup),
                params=search_params(inner.get("params")),
                filter=filter_of(inner.get("filter")),
                score_threshold=inner.get("score_threshold"),
            )
        )
    return found


def _scoring(body: Any, using: str, lookup: Lookup) -> tuple[Any, list[Any]]:
    """The wheel's query, and the ids of points that must not be among their own neighbours."""
    name = using or None
    if body is None:
        return None, []
    if not isinstance(body, dict) or set(body) == {"indices", "values"}:
        value, excluded = _input(body, using, lookup)
        return edge.Query.Nearest(value, name), excluded
    if "nearest" in body:
        value, excluded = _input(body["nearest"], using, lookup)
        mmr = body.get("mmr")
        if mmr:
            limit = mmr.get("candidates_limit") or 100
            return edge.Mmr(value, 1.0 - float(mmr.get("diversity", 0.5)), limit, name), excluded
        return edge.Query.Nearest(value, name), excluded
    if "recommend" in body:
        return _recommend(body["recommend"], using, lookup)
    if "fusion" in body:
        return (edge.Fusion.Dbsf() if body["fusion"] == "dbsf" else edge.Fusion.Rrf(2)), []
    if "rrf" in body:
        return edge.Fusion.Rrf(body["rrf"].get("k") or 2, body["rrf"].get("weights")), []
    if "order_by" in body:
        return order_by(body["order_by"]), []
    if "sample" in body:
        return edge.Sample.Random, []
    raise refused(f"query of kind '{next(iter(body), 'nothing')}'")


def _input(value: Any, using: str, lookup: Lookup) -> tuple[Any, list[Any]]:
    if isinstance(value, int | str):
        identifier = point_id(value)
        return lookup(identifier, using), [identifier]
    if isinstance(value, list) and not value:
        raise ApiError(400, "Wrong input: Vector dimension error: the query vector is empty")
    return vector(value), []


def _recommend(body: dict[str, Any], using: str, lookup: Lookup) -> tuple[Any, list[Any]]:
    positives = [_input(value, using, lookup) for value in body.get("positive") or []]
    negatives = [_input(value, using, lookup) for value in body.get("negative") or []]
    excluded = [identifier for _, ids in (*positives, *negatives) for identifier in ids]
    good, bad = [value for value, _ in positives], [value for value, _ in negatives]
    strategy = body.get("strategy") or "average_vector"
    if strategy == "average_vector":
        if not good:
            raise ApiError(400, "Wrong input: recommend by average_vector needs a positive example")
        mean = _mean(good)
        if bad:
            mean = [2 * g - b for g, b in zip(mean, _mean(bad), strict=True)]
        return edge.Query.Nearest(mean, using or None), excluded
    make = edge.Query.RecommendBestScore if strategy == "best_score" else edge.Query.RecommendSumScores
    return make(edge.RecommendQuery(good, bad), using or None), excluded


def _mean(vectors: list[list[float]]) -> list[float]:
    return [math.fsum(column) / len(vectors) for column in zip(*vectors, strict=True)]
