"""The bodies of requests on points, by type: what is malformed or not understood ends here, before the wheel sees it.

The wheel writes to its log before it validates, and a real server passes over words that it does not know. Here each
word is either done or refused. The checked body is returned as plain JSON; vectors are checked with the collection's
configuration, in :mod:`vectors`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, Literal, Required

import orjson
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationError,
    with_config,
)
from typing_extensions import TypedDict

from plinth.embedded.conditions import Path, PointId, WholeFilter, point_id, shallow
from plinth.embedded.errors import ApiError, from_validation, invalid, malformed, refused

STRICT = ConfigDict(extra="forbid", strict=True)


class Checked:
    """A type of bodies, built when the first one comes: an engine starts without, and meets few of them."""

    def __init__(self, body: Any) -> None:
        self._body = body

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """What checks a body."""
        return TypeAdapter(self._body)


def parse(kind: Checked, body: bytes) -> Any:
    """A body checked by its type; raises :class:`ApiError` 400, 422, or 501 for what cannot be done."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise malformed(str(error)) from error
    try:
        return kind.adapter.validate_python(given)
    except ValidationError as error:
        raise from_validation(error) from error
    except RecursionError as error:
        raise malformed("recursion limit exceeded") from error


def unsupported(what: str) -> Any:
    """The type of a word whose only value is null: the engine cannot do it, and says so."""

    def check(value: Any) -> None:
        if value is not None:
            raise refused(what)

    return Annotated[Any, PlainValidator(check)]


def _filled(what: str) -> Callable[[list[Any]], list[Any]]:
    def check(values: list[Any]) -> list[Any]:
        if not values:
            raise invalid(what)
        return values

    return check


def _updating(points: list[Any]) -> list[Any]:
    if not points:
        raise ApiError(400, "Bad request: Empty update request")
    return points


def _example(value: Any) -> Any:
    """An id, or a vector whose shape is checked with the collection's configuration."""
    if isinstance(value, dict) and {"model", "text", "image", "object"} & value.keys():
        raise refused("inference; send vectors")
    if isinstance(value, list) or (isinstance(value, dict) and {"indices", "values"} & value.keys()):
        return value
    if isinstance(value, int | str) and not isinstance(value, bool):
        return point_id(value)
    raise malformed("expected some form of vector, id, or a type of query")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _selector(value: Any) -> str | None:
    return {bool: "flag", list: "names", dict: "object"}.get(type(value))


def _one_side(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) != 1:
        raise malformed("a payload selector has include or exclude, one of the two")
    return value


Payload = Annotated[dict[str, Any], BeforeValidator(lambda payload: shallow(payload))]
Ids = Annotated[list[PointId], AfterValidator(_updating)]
Example = Annotated[Any, PlainValidator(_example)]
Natural = Annotated[int, Field(ge=0, lt=2**64)]
Limit = Annotated[int, Field(ge=1, lt=2**64)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


@with_config(STRICT)
class Selected(TypedDict, total=False):
    """A part of the payload."""

    include: list[Path]
    exclude: list[Path]


WithPayload = Annotated[
    Annotated[bool, Tag("flag")]
    | Annotated[list[Path], Tag("names")]
    | Annotated[Selected, AfterValidator(_one_side), Tag("object")],
    Discriminator(_selector),
]
WithVector = Annotated[Annotated[bool, Tag("flag")] | Annotated[list[str], Tag("names")], Discriminator(_selector)]


@with_config(STRICT)
class PointStruct(TypedDict, total=False):
    """A point with its vectors and its payload."""

    id: Required[PointId]
    vector: Required[Any]
    payload: Payload | None


@with_config(STRICT)
class Columns(TypedDict, total=False):
    """Points in columns."""

    ids: Required[list[PointId]]
    vectors: Required[dict[str, list[Any]] | list[Any]]
    payloads: list[Payload | None] | None


@with_config(STRICT)
class Upsert(TypedDict, total=False):
    """`PUT /points`."""

    points: list[PointStruct]
    batch: Columns
    shard_key: unsupported("shard keys")  # type: ignore[valid-type]
    update_filter: WholeFilter | None
    update_mode: Literal["upsert", "insert_only", "update_only"] | None


def _upsert(body: Any) -> Any:
    if len(body.keys() & {"points", "batch"}) != 1:
        raise malformed("Invalid PointInsertOperations format: points or batch, one of the two")
    return body


@with_config(STRICT)
class PointVectors(TypedDict):
    """A point's vectors."""

    id: PointId
    vector: Any


@with_config(STRICT)
class UpdateVectors(TypedDict, total=False):
    """`PUT /points/vectors`."""

    points: Required[Annotated[list[PointVectors], AfterValidator(_filled("points: must specify points to update"))]]
    shard_key: unsupported("shard keys")  # type: ignore[valid-type]
    update_filter: unsupported("update_filter on vectors")  # type: ignore[valid-type]


@with_config(STRICT)
class Selector(TypedDict, total=False):
    """Points by id or by a filter."""

    points: Ids | None
    filter: WholeFilter | None
    shard_key: unsupported("shard keys")  # type: ignore[valid-type]


@with_config(STRICT)
class DeleteVectors(Selector, total=False):
    """`POST /points/vectors/delete`."""

    vector: Required[Annotated[list[str], AfterValidator(_filled("vector: must specify vector names to delete"))]]


@with_config(STRICT)
class SetPayload(Selector, total=False):
    """`POST` and `PUT /points/payload`."""

    payload: Required[Payload]
    key: Path | None


@with_config(STRICT)
class DeletePayload(Selector, total=False):
    """`POST /points/payload/delete`."""

    keys: Required[list[Path]]


def _selecting(body: Any) -> Any:
    chosen = [body.get("points"), body.get("filter")]
    if all(part is None for part in chosen):
        raise malformed("either a list of point ids or a filter must be provided")
    if all(part is not None for part in chosen):
        raise malformed("points and filter exclude each other; keep one")
    return body


def _placed(body: Any) -> Any:
    key = body.get("key")
    if key is not None:
        shallow(body["payload"], above=len(key.split(".")) + key.count("["))
    return _selecting(body)


def _selecting_type(body: Any) -> Any:
    return Annotated[body, AfterValidator(_selecting)]


WRITING: dict[str, Any] = {
    "upsert": Annotated[Upsert, AfterValidator(_upsert)],
    "delete": _selecting_type(Selector),
    "set_payload": Annotated[SetPayload, AfterValidator(_placed)],
    "overwrite_payload": Annotated[SetPayload, AfterValidator(_placed)],
    "delete_payload": _selecting_type(DeletePayload),
    "clear_payload": _selecting_type(Selector),
    "update_vectors": UpdateVectors,
    "delete_vectors": _selecting_type(DeleteVectors),
}
_WRITERS = {kind: Checked(body) for kind, body in WRITING.items()}


def _operation(value: Any) -> Any:
    if not isinstance(value, dict) or len(value) != 1:
        raise malformed("an operation of a batch is an object with one key")
    ((kind, body),) = value.items()
    if kind not in _WRITERS:
        raise malformed(f"unknown operation {kind!r}, expected one of {', '.join(_WRITERS)}")
    return {kind: _WRITERS[kind].adapter.validate_python(body)}


@with_config(STRICT)
class Batch(TypedDict):
    """`POST /points/batch`."""

    operations: list[Annotated[Any, PlainValidator(_operation)]]


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


Pairs = Annotated[list[Pair], BeforeValidator(_listed)]


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

    prefetch: Annotated[list[Prefetch], BeforeValidator(_listed)] | None


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


@with_config(STRICT)
class CreateIndex(TypedDict):
    """The front's own, checked there."""

    field_name: str
    field_schema: Any


@with_config(STRICT)
class DeleteIndex(TypedDict):
    """The front's own."""

    field_name: str


BODIES: dict[str, Checked] = {
    **_WRITERS,
    **{
        operation: Checked(body)
        for operation, body in {
            "batch": Batch,
            "create_index": CreateIndex,
            "delete_index": DeleteIndex,
            "retrieve": Retrieve,
            "scroll": Scroll,
            "count": Count,
            "facet": Facet,
            "query": QueryPoints,
            "query_batch": QueryBatch,
            "query_groups": QueryGroups,
        }.items()
    },
}
