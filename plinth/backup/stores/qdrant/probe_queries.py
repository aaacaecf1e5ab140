"""Verification queries: searches with their exact top 10, and digests of points, from before and after a snapshot.

Results that are equal on both sides were the same in between too, even if something was written. Only those are kept,
and a restored collection must return them.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

import orjson

from plinth.backup.manifest import Question, Sample
from plinth.qdrant.client import Qdrant, collection_path
from plinth.qdrant.probe_vectors import moved

TOP = 10
PLAIN, FILTERED = 4, 2
PER_OFFSET = 2
TOLERANCE = 1e-4
# Integers by powers of four, UUIDs by their first digit: a spread over both kinds of id without reading them all.
OFFSETS: tuple[int | str, ...] = (
    *(4**power for power in range(20)),
    *(str(uuid.UUID(int=digit << 124)) for digit in range(16)),
)
# A filter that the payload schema makes fast.
MATCHED = ("keyword", "integer", "bool", "uuid")


def sampled(client: Qdrant, collection: str) -> list[dict[str, Any]]:
    """Return points from all parts of a collection, with vectors and payload."""
    path = f"{collection_path(collection)}/points/scroll"
    found: dict[Any, dict[str, Any]] = {}
    # The first point after an offset, which may lie after other offsets too.
    following = None
    for offset in OFFSETS:
        if following and _place(offset) <= following:
            continue
        body = {"limit": PER_OFFSET, "offset": offset, "with_vector": True, "with_payload": True}
        points = client.call("POST", path, body)["points"]
        if not points:
            break
        found |= {point["id"]: point for point in points}
        following = _place(points[0]["id"])
    return list(found.values())


def digests(points: Sequence[dict[str, Any]]) -> tuple[Sample, ...]:
    """Return a digest of each point's vectors and payload."""
    return tuple(Sample(id=point["id"], sha256=_digest(point)) for point in points)


def again(client: Qdrant, collection: str, samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return the same points as they are now, without those that are gone."""
    body = {"ids": [sample.id for sample in samples], "with_vector": True, "with_payload": True}
    points = client.call("POST", f"{collection_path(collection)}/points", body) if samples else []
    return digests(points)


def choose(points: Sequence[dict[str, Any]], described: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the bodies of the searches, some of them filtered by an indexed field; the same for the same points."""
    usable = [point for point in points if point.get("vector")]
    step = max(1, len(usable) // (PLAIN + FILTERED))
    chosen = usable[::step][: PLAIN + FILTERED]
    fields = [
        field
        for field, schema in sorted((described.get("payload_schema") or {}).items())
        if schema["data_type"] in MATCHED
    ]
    bodies = []
    for number, point in enumerate(chosen):
        condition = _condition(point, fields) if number >= PLAIN else None
        for using, vector in _vectors(point):
            query = _query(vector, str(point["id"]))
            if query is not None:
                bodies.append({"using": using, "query": query, "filter": condition})
    return bodies


def asked(client: Qdrant, collection: str, bodies: Sequence[dict[str, Any]]) -> list[Question]:
    """Return the exact answers to some searches."""
    path = f"{collection_path(collection)}/points/query"
    found = []
    for body in bodies:
        asking = {
            "query": body["query"],
            "limit": TOP,
            "params": {"exact": True},
            **({"using": body["using"]} if body["using"] else {}),
            **({"filter": body["filter"]} if body["filter"] else {}),
        }
        hits = client.call("POST", path, asking)["points"]
        found.append(
            Question(
                using=body["using"],
                query=body["query"],
                filter=body["filter"],
                ids=tuple(hit["id"] for hit in hits),
                scores=tuple(hit["score"] for hit in hits),
            )
        )
    return found


def bodies_of(questions: Sequence[Question]) -> list[dict[str, Any]]:
    """Return the searches that some answers belong to."""
    return [{"using": each.using, "query": each.query, "filter": each.filter} for each in questions]


def alike(wanted: Question, found: Question) -> bool:
    """Whether two answers agree: scores within a rounding error, and ids up to the order of equal scores."""
    if len(wanted.ids) != len(found.ids):
        return False
    if not all(_near(a, b) for a, b in zip(wanted.scores, found.scores, strict=True)):
        return False
    if not wanted.scores:
        return True
    # Points with the same score as the last one may replace each other.
    last = wanted.scores[-1]
    sure = {id_ for id_, score in zip(wanted.ids, wanted.scores, strict=True) if not _near(score, last)}
    return sure <= set(found.ids)


def steady(before: Sequence[Question], after: Sequence[Question]) -> tuple[Question, ...]:
    """Return the answers that did not change."""
    # Without answers from after the snapshot, those from before prove nothing.
    return tuple(one for one, other in zip(before, after, strict=False) if alike(one, other))


def _place(id_: int | str) -> tuple[bool, int | str]:
    """Return the sort key of an id in the order of a scroll: integers, then UUIDs."""
    return isinstance(id_, str), id_


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(1.0, abs(one), abs(other))


def _digest(point: dict[str, Any]) -> str:
    known = {"vector": point.get("vector"), "payload": point.get("payload") or {}}
    return hashlib.sha256(orjson.dumps(known, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _condition(point: dict[str, Any], fields: Sequence[str]) -> dict[str, Any] | None:
    payload = point.get("payload") or {}
    for field in fields:
        value = payload.get(field)
        if isinstance(value, (str, int)):
            return {"must": [{"key": field, "match": {"value": value}}]}
    return None


def _vectors(point: dict[str, Any]) -> list[tuple[str, Any]]:
    vector = point["vector"]
    return sorted(vector.items()) if isinstance(vector, dict) else [("", vector)]


def _query(vector: Any, seed: str) -> Any:
    if isinstance(vector, dict):
        return vector if vector.get("indices") else None
    if vector and isinstance(vector[0], list):
        return vector
    return list(moved(vector, seed)) if vector else None
