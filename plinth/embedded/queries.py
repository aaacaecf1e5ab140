"""Queries of the REST API as the wheel's requests, and its answers as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import qdrant_edge as edge

from plinth.embedded.conditions import date
from plinth.embedded.errors import ApiError, invalid, malformed, refused
from plinth.embedded.filters import filter_of
from plinth.embedded.vectors import Vectors

DEFAULT_LIMIT = 10
COUNT_MAX = 2**31
"""More than any shard holds; the wheel ends itself over sums beyond 64 bits."""


class MissingVector(ApiError):
    """A point that has no vector of a name."""

    def __init__(self, identifier: Any, name: str) -> None:
        super().__init__(404, f'Not found: Vector with name "{name}" for point {identifier} not found')


@dataclass(frozen=True)
class Space:
    """What a query is read in: the collection's vectors, and ``stored``, from a point id and a name to a vector."""

    vectors: Vectors
    stored: Callable[[Any, str], Any]


def limit_of(body: dict[str, Any], default: int = DEFAULT_LIMIT) -> int:
    """The number of results asked for; more than there can be are as many as there can be."""
    return min(body.get("limit") or default, COUNT_MAX)


def offset_of(body: dict[str, Any]) -> int:
    """The number of results passed over."""
    return min(body.get("offset") or 0, COUNT_MAX)


def check_stages(body: dict[str, Any]) -> None:
    """Refuse a query whose parts do not go together, as a real server refuses it."""
    query, stages = body.get("query"), body.get("prefetch")
    kinds = query.keys() if isinstance(query, dict) else set()
    if stages and query is None:
        raise ApiError(400, "Bad request: A query is needed to merge the prefetches. Can't have prefetches without one")
    if kinds & {"fusion", "rrf"} and not stages:
        raise ApiError(400, "Wrong input: Validation failed: cannot apply Fusion without prefetches")
    weights = query["rrf"].get("weights") if isinstance(query, dict) and "rrf" in kinds else None
    if weights is not None and len(weights) != len(stages or []):
        raise ApiError(400, f"Wrong input: RRF has {len(weights)} weights for {len(stages or [])} prefetches")
    if body.get("score_threshold") is not None and (query is None or "order_by" in kinds):
        raise ApiError(400, "Bad request: A query that scores is needed to use the score_threshold")
    for stage in stages or []:
        if stage.get("prefetch"):
            check_stages(stage)


def query_request(body: dict[str, Any], space: Space) -> edge.QueryRequest:
    """A checked `points/query` body."""
    query, excluded = _scoring(body.get("query"), body.get("using") or "", space)
    space.vectors.check_selected(body.get("with_vector"))
    return edge.QueryRequest(
        limit=limit_of(body),
        offset=offset_of(body),
        query=query,
        prefetches=_prefetches(body.get("prefetch"), space),
        filter=_without(excluded, body.get("filter")),
        score_threshold=body.get("score_threshold"),
        params=search_params(body.get("params")),
        with_payload=with_payload(body.get("with_payload", False)),
        with_vector=with_vector(body),
    )


def search_params(body: dict[str, Any] | None) -> edge.SearchParams | None:
    """A query's `params`."""
    if not body:
        return None
    quantization, acorn = body.get("quantization"), body.get("acorn")
    return edge.SearchParams(
        hnsw_ef=body.get("hnsw_ef"),
        exact=bool(body.get("exact")),
        acorn=edge.AcornSearchParams(bool(acorn.get("enable")), acorn.get("max_selectivity")) if acorn else None,
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


def with_vector(body: dict[str, Any]) -> Any:
    """The vectors that are answered: all, none, or those named; an empty list names none."""
    return body.get("with_vector") or False


def order_by(body: Any) -> edge.OrderBy:
    """An `order_by`: a key, or an object."""
    if isinstance(body, str):
        return edge.OrderBy(body)
    start = body.get("start_from")
    if start is not None:
        _check_start(start)
    direction = {"asc": edge.Direction.Asc, "desc": edge.Direction.Desc, None: None}[body.get("direction")]
    return edge.OrderBy(body["key"], direction, start)


def _check_start(value: Any) -> None:
    if isinstance(value, str):
        date(value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise malformed("start_from: expected a number or a date")


def scored(point: Any) -> dict[str, Any]:
    """A hit as JSON."""
    found = {"id": point.id, "version": point.version, "score": np.float32(point.score)}
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
    """Numbers as the single precision that they are: JSON has their shortest form then, as a real server writes it."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, edge.SparseVector):
        return {"indices": value.indices, "values": np.asarray(value.values, dtype=np.float32)}
    return np.asarray(value, dtype=np.float32)


def _without(ids: list[Any], body: Any) -> edge.Filter | None:
    """A filter that leaves these points out as well."""
    condition = filter_of(body)
    if not ids:
        return condition
    return edge.Filter(must=[condition] if condition else None, must_not=[edge.HasIdCondition(set(ids))])


def _prefetches(body: Any, space: Space) -> list[edge.Prefetch] | None:
    if not body:
        return None
    prefetches = []
    for inner in body:
        query, excluded = _scoring(inner.get("query"), inner.get("using") or "", space)
        prefetches.append(
            edge.Prefetch(
                limit=limit_of(inner),
                query=query,
                prefetches=_prefetches(inner.get("prefetch"), space),
                params=search_params(inner.get("params")),
                filter=_without(excluded, inner.get("filter")),
                score_threshold=inner.get("score_threshold"),
            )
        )
    return prefetches


def _scoring(body: Any, using: str, space: Space) -> tuple[Any, list[Any]]:
    """The wheel's query, and the ids of points that must not be among their own neighbours."""
    name = using or None
    if body is None:
        return None, []
    kind = next((kind for kind in _KINDS if isinstance(body, dict) and kind in body), None)
    if kind is not None:
        return _KINDS[kind](body, using, space)
    value, excluded = _input(body, using, space)
    return edge.Query.Nearest(value, name), excluded


def _input(value: Any, using: str, space: Space) -> tuple[Any, list[Any]]:
    space.vectors.check_name(using)
    if isinstance(value, int | str):
        return space.stored(value, using), [value]
    if value == []:
        raise ApiError(400, "Wrong input: Vector dimension error: the query vector is empty")
    return space.vectors.checked(value, using), []


def _inputs(values: Any, using: str, space: Space) -> tuple[list[Any], list[Any]]:
    pairs = [_input(value, using, space) for value in values or []]
    return [value for value, _ in pairs], [identifier for _, ids in pairs for identifier in ids]


def _liked(values: Any, using: str, space: Space) -> tuple[list[Any], list[Any]]:
    """Examples; a point without such a vector says nothing, as on a real server."""
    vectors, ids = [], []
    for value in values or []:
        try:
            vector, excluded = _input(value, using, space)
        except MissingVector:
            ids.append(value)
            continue
        vectors.append(vector)
        ids += excluded
    return vectors, ids


def _nearest(body: dict[str, Any], using: str, space: Space) -> tuple[Any, list[Any]]:
    value, excluded = _input(body["nearest"], using, space)
    mmr = body.get("mmr")
    if mmr is None:
        return edge.Query.Nearest(value, using or None), excluded
    if space.vectors.kinds[using].size is None:
        raise refused("mmr over sparse vectors")
    limit, diversity = mmr.get("candidates_limit"), mmr.get("diversity")
    relevance = 1.0 - (0.5 if diversity is None else float(diversity))
    return edge.Mmr(value, relevance, 100 if limit is None else limit, using or None), excluded


def _recommend(body: dict[str, Any], using: str, space: Space) -> tuple[Any, list[Any]]:
    examples = body["recommend"]
    good, liked = _liked(examples.get("positive"), using, space)
    bad, disliked = _liked(examples.get("negative"), using, space)
    excluded = liked + disliked
    strategy = examples.get("strategy") or "average_vector"
    if not examples.get("positive") and not examples.get("negative"):
        raise invalid("recommend.positives, negatives: at least one positive or negative is needed")
    if strategy == "average_vector":
        if not good:
            raise ApiError(400, "Wrong input: Positive vectors should not be empty with `average` strategy")
        return edge.Query.Nearest(average(good, bad), using or None), excluded
    make = edge.Query.RecommendBestScore if strategy == "best_score" else edge.Query.RecommendSumScores
    return make(edge.RecommendQuery(good, bad), using or None), excluded


def _discover(body: dict[str, Any], using: str, space: Space) -> tuple[Any, list[Any]]:
    target, own = _input(body["discover"]["target"], using, space)
    pairs, excluded = _pairs(body["discover"]["context"], using, space)
    return edge.Query.Discover(edge.DiscoverQuery(target, pairs), using or None), own + excluded


def _context(body: dict[str, Any], using: str, space: Space) -> tuple[Any, list[Any]]:
    pairs, excluded = _pairs(body["context"], using, space)
    return edge.Query.Context(edge.ContextQuery(pairs), using or None), excluded


def _pairs(body: Any, using: str, space: Space) -> tuple[list[Any], list[Any]]:
    pairs, excluded = [], []
    for pair in body or []:
        (positive, negative), ids = _inputs([pair["positive"], pair["negative"]], using, space)
        pairs.append(edge.ContextPair(positive, negative))
        excluded += ids
    return pairs, excluded


def _fusion(body: dict[str, Any], _using: str, _space: Space) -> tuple[Any, list[Any]]:
    return (edge.Fusion.Dbsf() if body["fusion"] == "dbsf" else edge.Fusion.Rrf(2)), []


def _rrf(body: dict[str, Any], _using: str, _space: Space) -> tuple[Any, list[Any]]:
    return edge.Fusion.Rrf(min(body["rrf"].get("k") or 2, COUNT_MAX), body["rrf"].get("weights")), []


_KINDS: dict[str, Callable[[dict[str, Any], str, Space], tuple[Any, list[Any]]]] = {
    "nearest": _nearest,
    "recommend": _recommend,
    "discover": _discover,
    "context": _context,
    "order_by": lambda body, _using, _space: (order_by(body["order_by"]), []),
    "fusion": _fusion,
    "rrf": _rrf,
    "sample": lambda _body, _using, _space: (edge.Sample.Random, []),
}


def average(good: list[Any], bad: list[Any]) -> Any:
    """The vector that `average_vector` searches with: of sparse ones by index, of several ones all of them."""
    if isinstance(good[0], edge.SparseVector):
        mean = _sparse_mean(good)
        if bad:
            away = _sparse_mean(bad)
            mean = {i: 2 * mean.get(i, 0.0) - away.get(i, 0.0) for i in mean.keys() | away.keys()}
        return edge.SparseVector(sorted(mean), [mean[index] for index in sorted(mean)])
    if isinstance(good[0][0], list):
        rows = [row for value in good for row in value]
        return rows + [[-number for number in row] for value in bad for row in value]
    mean_vector = _mean(good)
    if bad:
        return [2 * g - b for g, b in zip(mean_vector, _mean(bad), strict=True)]
    return mean_vector


def _sparse_mean(vectors: list[edge.SparseVector]) -> dict[int, float]:
    sums: dict[int, float] = {}
    for vector in vectors:
        for index, value in zip(vector.indices, vector.values, strict=True):
            sums[index] = sums.get(index, 0.0) + value
    return {index: value / len(vectors) for index, value in sums.items()}


def _mean(vectors: list[list[float]]) -> list[float]:
    return [math.fsum(column) / len(vectors) for column in zip(*vectors, strict=True)]
