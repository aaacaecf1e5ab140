"""A collection for applications: stable ids, upserts in batches, and searches that never leave their tenant.

A collection whose spec names a tenant has links within each tenant only; a search without a tenant returns next to
nothing right (recall .06 on a real server), and no setting of the server forbids it. Here it cannot be left out. The
same holds for `searched_by`, of which a search names one.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from plinth.errors import UserError
from plinth.qdrant.apply import converge
from plinth.qdrant.client import Qdrant, collection_path
from plinth.qdrant.spec import CollectionSpec

__all__ = [
    "NAMESPACE",
    "Between",
    "Condition",
    "Hit",
    "ensure_collection",
    "hybrid_search",
    "mock_vector",
    "point_id_for",
    "search",
    "upsert",
]

NAMESPACE = uuid.UUID("6b1e9c52-6d0f-5c55-9a4e-1f0f3f6f7a10")
Condition = str | int | bool | Sequence[str] | Sequence[int]


@dataclass(frozen=True)
class Between:
    """A range of numbers or times; a bound that is None is open. ``until`` is not included."""

    since: float | datetime | None = None
    until: float | datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Return Qdrant's range."""
        bounds = {"gte": self.since, "lt": self.until}
        return {k: b.isoformat() if isinstance(b, datetime) else b for k, b in bounds.items() if b is not None}


@dataclass(frozen=True)
class Hit:
    """A point in a search's result, its score and its payload."""

    id: int | str
    score: float
    payload: Mapping[str, Any]


def point_id_for(org_id: str, asset_id: str, segment_id: str, model: str, model_ver: str) -> str:
    """Return the id of a segment's point: the same for the same five values, another for any others (S0-01)."""
    # JSON keeps ("a", "bc") and ("ab", "c") apart.
    return str(uuid.uuid5(NAMESPACE, json.dumps([org_id, asset_id, segment_id, model, model_ver])))


def mock_vector(asset_id: str, segment_id: str, size: int) -> list[float]:
    """Return a unit vector for tests, the same for the same asset and segment on every machine (S0-02)."""
    seed = json.dumps([asset_id, segment_id]).encode()
    raw = hashlib.shake_256(seed).digest(size * 4)
    values = np.frombuffer(raw, dtype="<u4").astype(np.float64) / 2**31 - 1.0
    return [float(value) for value in values / np.linalg.norm(values)]


def ensure_collection(client: Qdrant, spec: CollectionSpec) -> None:
    """Create the collection as in its spec, or bring an existing one to it."""
    converge(client, spec)


def upsert(client: Qdrant, spec: CollectionSpec, points: Sequence[Mapping[str, Any]]) -> int:
    """Write points (`id`, `vector`, `payload`) in batches of the spec's size; returns how many.

    Raises :class:`UserError` for a point without its tenant, before anything is written.
    """
    for point in points:
        if spec.tenant and point.get("payload", {}).get(spec.tenant) is None:
            raise UserError(
                f"{spec.name}: point {point.get('id')} has no '{spec.tenant}' in its payload; set its tenant."
            )
    for start in range(0, len(points), spec.batch_size):
        batch = [dict(point) for point in points[start : start + spec.batch_size]]
        client.call("PUT", f"{collection_path(spec.name)}/points?wait=true", {"points": batch})
    return len(points)


def search(
    client: Qdrant,
    spec: CollectionSpec,
    vector: Sequence[float],
    *,
    tenant: str | None = None,
    where: Mapping[str, Condition | Between] | None = None,
    limit: int = 10,
    score_threshold: float | None = None,
) -> list[Hit]:
    """Return the nearest points within a tenant, with the spec's search settings.

    ``where`` maps payload fields to a value, a list of values or a :class:`Between` (S2-04).
    """
    body = {
        "query": list(vector),
        "filter": _filter(spec, tenant, where),
        "limit": limit,
        "with_payload": True,
        "params": spec.search.params(),
        "score_threshold": score_threshold if score_threshold is not None else spec.search.score_threshold,
    }
    return _hits(client, spec, body)


def hybrid_search(
    client: Qdrant,
    spec: CollectionSpec,
    vector: Sequence[float],
    text: str,
    *,
    field: str = "content",
    tenant: str | None = None,
    where: Mapping[str, Condition | Between] | None = None,
    limit: int = 10,
) -> list[Hit]:
    """Return the nearest by vector, and the nearest of those that hold every word, fused by rank (S3-03)."""
    index = spec.payload_indexes.get(field)
    if index is None or index.type != "text":
        raise UserError(
            f"{spec.name}: '{field}' has no text index, so its words cannot be searched; add one to its file."
        )
    condition = _filter(spec, tenant, where)
    words = {"must": [condition, {"key": field, "match": {"text": text}}]}
    nearest = {"query": list(vector), "limit": limit * 2, "params": spec.search.params()}
    body = {
        "prefetch": [{**nearest, "filter": condition}, {**nearest, "filter": words}],
        "query": {"fusion": "rrf"},
        "limit": limit,
        "with_payload": True,
    }
    return _hits(client, spec, body)


def _filter(
    spec: CollectionSpec, tenant: str | None, where: Mapping[str, Condition | Between] | None
) -> dict[str, list[Any]]:
    if spec.tenant and tenant is None and not spec.public_field:
        raise UserError(f"{spec.name} is searched within one '{spec.tenant}' only; name the tenant.")
    # One value: a list would need a path from the links of one value to those of another, which may not exist.
    if (
        tenant is None
        and spec.scopes
        and not any(isinstance((where or {}).get(field), str | int) for field in spec.scopes)
    ):
        raise UserError(f"{spec.name} is searched by one value of {' or '.join(spec.scopes)}; put it into `where`.")
    must = [_condition(field, wanted) for field, wanted in (where or {}).items()]
    if tenant is not None:
        if spec.tenant is None:
            raise UserError(f"{spec.name} has no tenant field; put the condition into `where`.")
        must.insert(0, {"key": spec.tenant, "match": {"value": tenant}})
    return {"must": must}


def _condition(field: str, wanted: Condition | Between) -> dict[str, Any]:
    if isinstance(wanted, Between):
        return {"key": field, "range": wanted.to_json()}
    if isinstance(wanted, str | int | bool):
        return {"key": field, "match": {"value": wanted}}
    return {"key": field, "match": {"any": list(wanted)}}


def _hits(client: Qdrant, spec: CollectionSpec, body: Mapping[str, Any]) -> list[Hit]:
    found = client.call("POST", f"{collection_path(spec.name)}/points/query", body)["points"]
    return [Hit(point["id"], point["score"], point.get("payload") or {}) for point in found]
