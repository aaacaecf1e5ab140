"""The points and queries that settings are tried on: real text, generated vectors, or the collection's own points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plinth.errors import UserError
from plinth.gateway.providers.minilm_model import DIMENSIONS
from plinth.load.dataset import wordnet
from plinth.load.synthetic_vectors import generate, intrinsic_dimension
from plinth.qdrant.client import Qdrant, collection_path
from plinth.qdrant.spec import CollectionSpec
from plinth.tune.recall_bands import spread

Progress = Callable[[str], None]
# Few enough that the largest has a quarter: the graph falls apart for such a one first.
TENANTS = 20
# Queries drawn for each one that is kept: most tenants are small and rarely queried.
DRAWN = 5
PAGE = 500
PATIENCE = 5


@dataclass(frozen=True)
class Sample:
    """``vectors`` (n, d) with the tenant of each, and queries with theirs; no query is among the stored points.

    ``tenants`` is empty where the collection has no field to filter by.
    """

    name: str
    vectors: npt.NDArray[np.float32]
    tenants: tuple[str, ...]
    queries: npt.NDArray[np.float32]
    query_tenants: tuple[str, ...]

    @property
    def shares(self) -> dict[str, float]:
        """Each tenant's share of the points."""
        return {tenant: count / len(self.tenants) for tenant, count in Counter(self.tenants).items()}

    @property
    def intrinsic_dimension(self) -> float:
        """The intrinsic dimension of the set, which says how hard it is to search: real text has 15 to 30."""
        return intrinsic_dimension(self.vectors)


def scope_field(spec: CollectionSpec) -> str | None:
    """Return the field that searches are filtered by: the collection's scope, else its first keyword index."""
    keywords = [field for field, index in spec.payload_indexes.items() if index.type in ("keyword", "uuid")]
    return next(iter([*spec.scopes, *keywords]), None)


def offline(kind: str, spec: CollectionSpec, points: int, queries: int, cache: Path, on_progress: Progress) -> Sample:
    """Draw points without a server: ``wordnet``, ``generated``, or ``auto``, which is wordnet if its dimension fits."""
    size = spec.vectors.size
    if kind == "wordnet" and size != DIMENSIONS:
        raise UserError(
            f"{spec.name} has {size} dimensions and the WordNet sample {DIMENSIONS}; take --sample generated, "
            "or name an environment to sample its points."
        )
    if kind == "wordnet" or (kind == "auto" and size == DIMENSIONS):
        data = wordnet(points, queries * DRAWN, cache, on_progress)
        return _kept(data.name, data.vectors, data.tenants, data.queries, data.query_tenants, queries)
    found = generate(points, size, TENANTS, queries * DRAWN, seed=11)
    tenants, asked = ([f"t{number}" for number in numbers] for numbers in (found.tenants, found.query_tenants))
    return _kept(f"generated {points:,} x {size}", found.vectors, tenants, found.queries, asked, queries)


def live(client: Qdrant, spec: CollectionSpec, points: int, queries: int, on_progress: Progress) -> Sample:
    """Draw random points of a running collection, which is only read; those used as queries are not stored."""
    found = _random_points(client, spec, points + queries * DRAWN, on_progress)
    if len(found) < max(200, 4 * queries):
        raise UserError(
            f"{spec.name} has {len(found)} points to sample and {4 * queries} are needed; ask fewer --queries, "
            "or leave the environment out and take --sample generated.",
            exit_code=1,
        )
    vectors = np.array([point["vector"] for point in found], dtype=np.float32)
    field = scope_field(spec)
    tenants = [str(_value(point["payload"], field)) for point in found] if field else []
    held = min(queries * DRAWN, len(found) // 2)
    return _kept(
        f"{len(found) - held:,} points of {client.url}",
        vectors[held:],
        tenants[held:],
        vectors[:held],
        tenants[:held],
        queries,
    )


def _kept(
    name: str,
    vectors: npt.NDArray[np.float32],
    tenants: Sequence[str],
    asked: npt.NDArray[np.float32],
    asked_tenants: Sequence[str],
    count: int,
) -> Sample:
    """Keep equally many queries of each band of tenants."""
    shares = {tenant: times / len(tenants) for tenant, times in Counter(tenants).items()}
    known = [row for row in range(len(asked)) if not tenants or asked_tenants[row] in shares]
    chosen = spread([asked_tenants[row] for row in known], shares, count) if tenants else range(min(count, len(known)))
    rows = [known[position] for position in chosen]
    return Sample(
        name=name,
        vectors=vectors,
        tenants=tuple(tenants),
        queries=asked[rows],
        query_tenants=tuple(asked_tenants[row] for row in rows) if tenants else (),
    )


def _random_points(client: Qdrant, spec: CollectionSpec, count: int, on_progress: Progress) -> list[dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    field = scope_field(spec)
    limit = min(PAGE, (spec.strict_mode_config and spec.strict_mode_config.max_query_limit) or PAGE)
    body = {
        "query": {"sample": "random"},
        "limit": limit,
        "with_vector": True,
        "with_payload": [field.split(".")[0]] if field else False,
    }
    without_news = 0
    while len(found) < count and without_news < PATIENCE:
        before = len(found)
        for point in client.call("POST", f"{collection_path(spec.name)}/points/query", body)["points"]:
            if isinstance(point.get("vector"), list):
                found[point["id"]] = point
        without_news = without_news + 1 if len(found) == before else 0
    on_progress(f"sampled {len(found):,} points of {spec.name}")
    return list(found.values())[:count]


def _value(payload: Any, field: str) -> Any:
    for key in field.split("."):
        payload = payload.get(key) if isinstance(payload, dict) else None
    return payload[0] if isinstance(payload, list) and payload else payload
