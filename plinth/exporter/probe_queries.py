"""The probe queries of a collection: fixed queries, run as applications run them, and once more exactly.

A query is the vector of a stored point with a little noise, since any graph returns a stored vector itself. In a
collection with tenants the queries go to the largest tenants, where a graph degrades first. The choice follows from the
points alone, so it is the same on every run until they change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plinth.qdrant.client import Qdrant, collection_path
from plinth.qdrant.probe_vectors import moved
from plinth.qdrant.spec import CollectionSpec

TOP = 10
SCOPES = 3
QUESTIONS = 6
LARGE = 0.05
NOBODY = "plinth-probe"


@dataclass(frozen=True)
class Question:
    """A query vector, the scope of its search, and whether the scope holds more than 5 % of the points."""

    vector: tuple[float, ...]
    scope: tuple[str, Any] | None
    large: bool


def choose(client: Qdrant, spec: CollectionSpec) -> list[Question]:
    """Return the probe queries; an empty collection has none."""
    path = collection_path(spec.name)
    found: list[Question] = []
    for scope, large in _scopes(client, spec):
        body = {"limit": QUESTIONS, "with_vector": True, "with_payload": False, "filter": within(scope)}
        points = client.call("POST", f"{path}/points/scroll", body)["points"]
        found += [Question(moved(point["vector"], str(point["id"])), scope, large) for point in points]
    return found


def nobody(spec: CollectionSpec) -> Question:
    """Return the query for an empty collection: it returns no point, and shows that the server answers."""
    vector = moved([0.0] * (spec.vectors.size - 1) + [1.0], spec.name)
    field = spec.scopes[0] if spec.scopes else None
    boolean = field is not None and spec.payload_indexes[field].type == "bool"
    return Question(vector, (field, False if boolean else NOBODY) if field else None, large=False)


def body(spec: CollectionSpec, question: Question, *, exact: bool = False) -> dict[str, Any]:
    """Return the request of a query: with the search settings of the spec, or exact."""
    return {
        "query": list(question.vector),
        "filter": within(question.scope),
        "limit": TOP,
        "with_payload": False,
        "params": {"exact": True} if exact else spec.search.params(),
    }


def within(scope: tuple[str, Any] | None) -> dict[str, Any] | None:
    """Return Qdrant's filter for a scope."""
    return {"must": [{"key": scope[0], "match": {"value": scope[1]}}]} if scope else None


def recall(shares: Sequence[tuple[Question, float]]) -> dict[str, float]:
    """Return the mean over all queries, and the least mean among the large tenants.

    A band without queries is absent.
    """
    by_tenant: dict[Any, list[float]] = {}
    for question, share in shares:
        if question.large:
            by_tenant.setdefault(question.scope, []).append(share)
    bands: dict[str, float] = {}
    if shares:
        bands["all"] = float(np.mean([share for _, share in shares]))
    if by_tenant:
        bands["large_tenant"] = min(float(np.mean(found)) for found in by_tenant.values())
    return bands


def _scopes(client: Qdrant, spec: CollectionSpec) -> list[tuple[tuple[str, Any] | None, bool]]:
    """Return the largest values of the scope's field, each with whether it is large."""
    if not spec.scopes:
        return [(None, False)]
    path, field = collection_path(spec.name), spec.scopes[0]
    total = client.call("POST", f"{path}/points/count", {"exact": False})["count"]
    hits = client.call("POST", f"{path}/facet", {"key": field, "limit": SCOPES})["hits"]
    return [((field, hit["value"]), hit["count"] > LARGE * max(total, 1)) for hit in hits]
