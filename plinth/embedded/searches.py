"""The bodies of requests that read, by type."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from pydantic import BeforeValidator, Discriminator, Field, Tag, with_config
from typing_extensions import TypedDict

from plinth.embedded.conditions import Path, PointId, WholeFilter
from plinth.embedded.errors import refused
from plinth.embedded.request_types import (
    STRICT,
    Checked,
    Example,
    Finite,
    Limit,
    Natural,
    WithPayload,
    WithVector,
    listed,
    unsupported,
)


@with_config(STRICT)
class Retrieve(TypedDict, total=False):
    """`POST /points`."""

    ids: Required[list[PointId]]
    with_payload: WithPayload | None
    with_vector: WithVector
    shard_key: unsupported("shard keys")  # type: ignore[valid-type]


@with_config(STRICT)
class StartFrom(TypedDict, total=False):
    """An order by a payload field."""

    key: Required[Path]
    direction: Literal["asc", "desc"] | None
    start_from: Any


OrderBy = Annotated[
    Annotated[str, Tag("key")] | Annotated[StartFrom, Tag("object")],
    Discriminator(lambda value: {str: "key", dict: "object"}.get(type(value))),
]


@with_config(STRICT)
class Scroll(TypedDict, total=False):
    """`POST /points/scroll`."""

    offset: PointId | None
    limit: Limit | None
    filter: WholeFilter | None
    with_payload: WithPayload | None
    with_vector: WithVector
    order_by: OrderBy | None
    shard_key: unsupported("shard keys")  # type: ignore[valid-type]


@with_config(STRICT)
class Count(TypedDict, total=False):
    """`POST /points/count`."""

    filter: WholeFilter | None
    exact: bool
    shard_key: unsupported("shard keys")  # type: ignore[valid-type]


@with_config(STRICT)
class Facet(TypedDict, total=False):
    """`POST /facet`."""

    key: Required[Path]
    limit: Limit | None
    filter: WholeFilter | None
    exact: bool | None
    shard_key: unsupported("shard keys")  # type: ignore[valid-type]


@with_config(STRICT)
class Quantization(TypedDict, total=False):
    """How a search uses quantized vectors."""

    ignore: bool
    rescore: bool | None
    oversampling: Annotated[float, Field(ge=1)] | None


@with_config(STRICT)
class Acorn(TypedDict, total=False):
    """ACORN."""

    enable: bool
    max_selectivity: Annotated[float, Field(ge=0, le=1)] | None


@with_config(STRICT)
class Params(TypedDict, total=False):
    """A query's `params`."""

    hnsw_ef: Natural | None
    exact: bool
    indexed_only: bool
    quantization: Quantization | None
    acorn: Acorn | None


@with_config(STRICT)
class Mmr(TypedDict, total=False):
    """Diversity."""

    diversity: Annotated[float, Field(ge=0, le=1)] | None
    candidates_limit: Annotated[int, Field(ge=0, le=16384)] | None


@with_config(STRICT)
class Nearest(TypedDict, total=False):
    """The nearest to a vector or a point."""

    nearest: Required[Example]
    mmr: Mmr | None


Strategy = Literal["average_vector", "best_score", "sum_scores"]


@with_config(STRICT)
class Examples(TypedDict, total=False):
    """What is liked and what is not."""

    positive: list[Example] | None
    negative: list[Example] | None
    strategy: Strategy | None


@with_config(STRICT)
class Pair(TypedDict):
    """One direction."""

    positive: Example
    negative: Example


Pairs = Annotated[list[Pair], BeforeValidator(listed)]


@with_config(STRICT)
class Target(TypedDict):
    """The nearest to a target among what lies in some directions."""

    target: Example
    context: Pairs | None


@with_config(STRICT)
class Rrf(TypedDict, total=False):
    """Reciprocal rank fusion."""

    k: Annotated[int, Field(ge=1, lt=2**64)] | None
    weights: list[Finite] | None


@with_config(STRICT)
class Recommend(TypedDict):
    """`{"recommend": ...}`; the others likewise."""

    recommend: Examples


@with_config(STRICT)
class Discover(TypedDict):
    """Discovery."""

    discover: Target


@with_config(STRICT)
class Context(TypedDict):
    """Points in some directions."""

    context: Pairs | None


@with_config(STRICT)
class Ordered(TypedDict):
    """By a payload field."""

    order_by: OrderBy


@with_config(STRICT)
class Fused(TypedDict):
    """Of several prefetches."""

    fusion: Literal["rrf", "dbsf"]


@with_config(STRICT)
class FusedBy(TypedDict):
    """Of several prefetches, with parameters."""

    rrf: Rrf


@with_config(STRICT)
class Sampled(TypedDict):
    """Any."""

    sample: Literal["random"]


_KINDS = ("nearest", "recommend", "discover", "context", "order_by", "fusion", "rrf", "sample")


def _query_kind(value: Any) -> str | None:
    if not isinstance(value, dict) or {"indices", "values"} & value.keys():
        return "example"
    for kind in ("formula", "relevance_feedback"):
        if kind in value:
            raise refused(f"query of kind '{kind}'")
    if {"model", "text", "image", "object"} & value.keys():
        return "example"
    return next((kind for kind in _KINDS if kind in value), None)


Query = Annotated[
    Annotated[Example, Tag("example")]
    | Annotated[Nearest, Tag("nearest")]
    | Annotated[Recommend, Tag("recommend")]
    | Annotated[Discover, Tag("discover")]
    | Annotated[Context, Tag("context")]
    | Annotated[Ordered, Tag("order_by")]
    | Annotated[Fused, Tag("fusion")]
    | Annotated[FusedBy, Tag("rrf")]
    | Annotated[Sampled, Tag("sample")],
    Discriminator(_query_kind),
]


@with_config(STRICT)
class Searching(TypedDict, total=False):
    """What a query and each of its stages may have."""

    query: Query | None
    using: str | None
    filter: WholeFilter | None
    params: Params | None
    score_threshold: Finite | None
    limit: Limit | None


@with_config(STRICT)
class Prefetch(Searching, total=False):
    """A stage before a query."""

    prefetch: Annotated[list[Prefetch], BeforeValidator(listed)] | None


@with_config(STRICT)
class QueryPoints(Prefetch, total=False):
    """`POST /points/query`."""

    offset: Natural | None
    with_payload: WithPayload | None
    with_vector: WithVector | None
    shard_key: unsupported("shard keys")  # type: ignore[valid-type]


@with_config(STRICT)
class QueryBatch(TypedDict):
    """`POST /points/query/batch`."""

    searches: list[QueryPoints]


@with_config(STRICT)
class QueryGroups(Prefetch, total=False):
    """`POST /points/query/groups`."""

    group_by: Required[Path]
    group_size: Limit | None
    with_payload: WithPayload | None
    with_vector: WithVector | None
    shard_key: unsupported("shard keys")  # type: ignore[valid-type]


BODIES = {
    operation: Checked(body)
    for operation, body in {
        "retrieve": Retrieve,
        "scroll": Scroll,
        "count": Count,
        "facet": Facet,
        "query": QueryPoints,
        "query_batch": QueryBatch,
        "query_groups": QueryGroups,
    }.items()
}
