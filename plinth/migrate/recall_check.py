"""The true neighbours of a few queries, computed while the source is read: the reference for both searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plinth.migrate.digest import Point
from plinth.migrate.model import Floats, Sparse, VectorShape
from plinth.migrate.target import Wanted
from plinth.migrate.vectors import from_json
from plinth.qdrant.client import Qdrant, QdrantError, collection_path

TOP = 10
QUERIES = 20
HIGHER_IS_NEARER = frozenset({"Cosine", "Dot"})
# Scores this near to the last of the true neighbours are ties.
TIES = {"float32": 1e-5, "float16": 5e-3, "uint8": 1e-3}
Near = tuple[float, int | str]


@dataclass
class Query:
    """A vector to search with, among the points whose payload has these values; ``near`` grows while rows are read."""

    vector: Floats
    within: Mapping[str, Any]
    near: list[Near] = field(default_factory=list)


def searched(target: Wanted) -> str | None:
    """Return the name of the vectors that the searches use: the first dense ones, one per point, or None."""
    return next((name for name, shape in sorted(target.shapes.items()) if not shape.sparse and not shape.multi), None)


def draw(client: Qdrant, target: Wanted, using: str) -> list[Query]:
    """Draw queries: vectors of points sampled by the server, each within its tenant if the collection has tenants."""
    body = {"query": {"sample": "random"}, "limit": QUERIES, "with_vector": True, "with_payload": True}
    found = client.call("POST", f"{collection_path(target.name)}/points/query", body)["points"]
    queries = []
    for point in found:
        vector, payload = from_json(point["vector"]).get(using), point.get("payload") or {}
        scopes = target.spec.scopes if target.spec else ()
        scope = next((name for name in scopes if isinstance(payload.get(name), str | int)), None)
        if vector is not None and not isinstance(vector, Sparse) and not (scopes and scope is None):
            queries.append(Query(vector, {scope: payload[scope]} if scope else {}))
    return queries


def learn(queries: Sequence[Query], points: Sequence[Point], using: str, shape: VectorShape) -> None:
    """Add points to the candidates for the true neighbours."""
    held = [(point, vector) for point in points if isinstance(vector := point.vectors.get(using), np.ndarray)]
    if not held:
        return
    matrix = np.stack([vector for _, vector in held]).astype(np.float64)
    for query in queries:
        scores = _scores(matrix, query.vector.astype(np.float64), shape.distance or "")
        near = list(query.near)
        for at in _best(scores, shape.distance or "") if not query.within else range(len(held)):
            point = held[at][0]
            if all(point.payload.get(name) == value for name, value in query.within.items()):
                near.append((float(scores[at]), point.id))
        near.sort(key=lambda one: one[0], reverse=shape.distance in HIGHER_IS_NEARER)
        # Points with the same score as the last one are all true.
        query.near = near[: TOP * 2]


def overlap(client: Qdrant, target: Wanted, queries: Sequence[Query], using: str, params: Mapping[str, Any]) -> float:
    """Return the share of true neighbours among the hits of the collection with these parameters."""
    shape, right, wanted = target.shapes[using], 0, 0
    for query in queries:
        body = {
            "query": query.vector.tolist(),
            "limit": TOP,
            "params": dict(params),
            "filter": {"must": [{"key": name, "match": {"value": value}} for name, value in query.within.items()]},
        } | ({"using": using} if using else {})
        hits = client.call("POST", f"{collection_path(target.name)}/points/query", body)["points"]
        found = [(float(hit["score"]), hit["id"]) for hit in hits]
        right += agreement(query.near, found, shape)
        wanted += min(TOP, len(query.near))
    if not wanted:
        raise QdrantError(f"{target.name} has no point to search by.")
    return right / wanted


def agreement(truth: Sequence[Near], found: Sequence[Near], shape: VectorShape) -> int:
    """Count the true neighbours among the hits; a hit with the score of the last true one counts."""
    best = truth[:TOP]
    if not best:
        return 0
    ids, last = {identifier for _, identifier in best}, best[-1][0]
    slack = TIES[shape.datatype] * max(1.0, abs(last))

    def near_enough(score: float) -> bool:
        return score >= last - slack if shape.distance in HIGHER_IS_NEARER else score <= last + slack

    return sum(identifier in ids or near_enough(score) for score, identifier in found[: len(best)])


def _scores(matrix: Any, query: Any, distance: str) -> Any:
    if distance in HIGHER_IS_NEARER:
        return matrix @ query
    difference = matrix - query
    return np.abs(difference).sum(axis=1) if distance == "Manhattan" else np.sqrt(np.square(difference).sum(axis=1))


def _best(scores: Any, distance: str) -> Any:
    nearest = -scores if distance in HIGHER_IS_NEARER else scores
    most = min(TOP * 2, len(scores))
    return np.argpartition(nearest, most - 1)[:most]
