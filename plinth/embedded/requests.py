"""The bodies of requests on points, by type: what is malformed or not understood ends here, before the wheel sees it.

The wheel writes to its log before it validates, and a real server passes over words that it does not know. Here each
word is either done or refused. The checked body is returned as plain JSON; vectors are checked with the collection's
configuration, in :mod:`vectors`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, PlainValidator, with_config
from typing_extensions import TypedDict

from plinth.embedded import searches
from plinth.embedded.conditions import Path, PointId, WholeFilter, shallow
from plinth.embedded.errors import malformed
from plinth.embedded.request_types import STRICT, Checked, Ids, Payload, filled, parse, unsupported

__all__ = ["BODIES", "parse"]


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

    points: Required[Annotated[list[PointVectors], AfterValidator(filled("points: must specify points to update"))]]
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

    vector: Required[Annotated[list[str], AfterValidator(filled("vector: must specify vector names to delete"))]]


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
    **searches.BODIES,
    **{
        operation: Checked(body)
        for operation, body in {"batch": Batch, "create_index": CreateIndex, "delete_index": DeleteIndex}.items()
    },
}
