"""From requests to what Qdrant stores and is asked, and back to what callers see."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from plinth.gateway.caller import Caller
from plinth.gateway.errors import dimension_mismatch, invalid
from plinth.gateway.model import Hit, HybridSearch, Point, Search, StoredPoint
from plinth.gateway.presets import filled
from plinth.gateway.qdrant_filters import Condition, has_words, qdrant_filter
from plinth.gateway.tenancy import ID_FIELD, Tenant


def points_to_store(tenant: Tenant, points: Sequence[Point], dimension: int) -> list[dict[str, Any]]:
    """The points to store, the last of each id; raises for the first that cannot be, before any is written."""
    stored: dict[str, dict[str, Any]] = {}
    for at, point in enumerate(points):
        if len(point.vector) != dimension:
            raise dimension_mismatch(f"points.{at}.vector", len(point.vector), dimension)
        identifier = tenant.own_id(point.id, f"points.{at}.id")
        payload = tenant.payload(point.id, point.payload, f"points.{at}.payload")
        stored.pop(identifier, None)
        stored[identifier] = {"id": identifier, "vector": point.vector, "payload": payload}
    return list(stored.values())


def query_request(caller: Caller, tenant: Tenant, request: Search, vector: list[float]) -> dict[str, Any]:
    """A search by a vector within what is the caller's; a hybrid one is fused by rank (S3-03)."""
    parts = [qdrant_filter(request.filter)] if request.filter else []
    if request.preset is not None:
        presets = tenant.shared.presets if tenant.shared else {}
        parts.append(qdrant_filter(filled(presets, request.preset, request.parameters, caller)))
    condition: Condition | None = {"must": parts} if parts else None
    params = tenant.shared.search_params if tenant.shared else None
    threshold = request.score_threshold
    if threshold is None and tenant.shared:
        threshold = tenant.shared.score_threshold
    common: dict[str, Any] = {
        "limit": request.top_k,
        "with_payload": True,
        "with_vector": request.with_vectors,
    }
    nearest = _present(query=vector, params=params, score_threshold=threshold)
    if not isinstance(request, HybridSearch):
        return {**_nearest(tenant, condition, nearest), **common}
    words = has_words(request.text_field, request.text or "")
    within: Condition = {"must": [condition, words] if condition else [words]}
    depth = min(request.top_k * 2, 10_000)
    prefetch = [{**_nearest(tenant, each, nearest), "limit": depth} for each in (condition, within)]
    return {"prefetch": prefetch, "query": {"fusion": "rrf"}, **common}


def _nearest(tenant: Tenant, condition: Condition | None, nearest: Mapping[str, Any]) -> dict[str, Any]:
    """The nearest that the caller may read and that meet a condition."""
    return {**nearest, **_present(filter=tenant.read_filter(condition))}


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _shown(payload: Mapping[str, Any], with_payload: bool | list[str]) -> dict[str, Any] | None:
    """The payload as its writer gave it, or some fields of it."""
    if with_payload is False:
        return None
    shown = {key: value for key, value in payload.items() if key != ID_FIELD}
    if with_payload is True:
        return shown
    selected: dict[str, Any] = {}
    for path in with_payload:
        _select(shown, path.split("."), selected)
    return selected


def _select(source: Any, path: list[str], into: dict[str, Any]) -> None:
    key, *rest = path
    if not isinstance(source, dict) or key not in source:
        return
    if not rest:
        into[key] = source[key]
    elif isinstance(source[key], dict):
        _select(source[key], rest, into.setdefault(key, {}))


def _given_id(tenant: Tenant, payload: Mapping[str, Any], identifier: Any) -> str:
    """The id that the writer gave; one that came another way (a migration) has its own."""
    given = payload.get(ID_FIELD)
    return tenant.shown_id(given if isinstance(given, str) else str(identifier), payload)


def _vector(vector: Any) -> list[float] | None:
    return vector if isinstance(vector, list) else None


def stored_point(tenant: Tenant, record: Mapping[str, Any], with_payload: bool | list[str]) -> StoredPoint:
    """A point as its writer gave it."""
    payload = record.get("payload") or {}
    return StoredPoint(
        id=_given_id(tenant, payload, record["id"]),
        payload=_shown(payload, with_payload),
        vector=_vector(record.get("vector")),
    )


def hit_of(tenant: Tenant, point: Mapping[str, Any], with_payload: bool | list[str]) -> Hit:
    """A point that a search returns, as its writer gave it."""
    payload = point.get("payload") or {}
    return Hit(
        id=_given_id(tenant, payload, point["id"]),
        score=point["score"],
        payload=_shown(payload, with_payload),
        vector=_vector(point.get("vector")),
    )


def offset_of(cursor: str | None) -> str | None:
    """The id that a page begins at; raises for a cursor that none has given."""
    if cursor is None:
        return None
    try:
        return str(uuid.UUID(cursor))
    except ValueError:
        raise invalid("cursor", "a cursor is the `next` of a page") from None
