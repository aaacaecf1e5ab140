"""What the types of requests share: how a body is checked, and the values that stand in several of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any

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

from plinth.embedded.conditions import Path, PointId, point_id, shallow
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
        return kind.adapter.validate_python(_renamed(given))
    except ValidationError as error:
        raise from_validation(error) from error
    except RecursionError as error:
        raise malformed("recursion limit exceeded") from error


def _renamed(given: Any) -> Any:
    """`with_vectors` is another word for `with_vector`, in a request and in each search of a batch."""
    if not isinstance(given, dict):
        return given
    if isinstance(given.get("searches"), list):
        return given | {"searches": [_renamed(search) for search in given["searches"]]}
    if "with_vectors" not in given or "with_vector" in given:
        return given
    return {"with_vector" if key == "with_vectors" else key: value for key, value in given.items()}


def unsupported(what: str) -> Any:
    """The type of a word whose only value is null: the engine cannot do it, and says so."""

    def check(value: Any) -> None:
        if value is not None:
            raise refused(what)

    return Annotated[Any, PlainValidator(check)]


def filled(what: str) -> Callable[[list[Any]], list[Any]]:
    """A check that a list is not empty; raises :class:`ApiError` 422 with ``what``."""

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


def listed(value: Any) -> Any:
    """One object stands for a list of one."""
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
