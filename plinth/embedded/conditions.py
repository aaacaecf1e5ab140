"""Filters of the REST API by type, checked before they become the wheel's objects."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Required
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, PlainValidator, Tag, with_config
from typing_extensions import TypedDict

from plinth.embedded.errors import invalid, malformed

STRICT = ConfigDict(extra="forbid", strict=True)
DEPTH_MAX = 120
"""Levels of a payload or a filter. A real server reads 124; the wheel's log cannot be read back with more than 122."""
_PATH = re.compile(r'(?:"[^"]+"|[\w-]+)(?:\[\d*\])*(?:\.(?:"[^"]+"|[\w-]+)(?:\[\d*\])*)*')
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")


def point_id(value: Any) -> int | str:
    """A point id: an unsigned 64-bit integer or a UUID; raises :class:`ApiError` 400."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64:
        return value
    if isinstance(value, str):
        try:
            return str(UUID(value))
        except ValueError:
            pass
    raise malformed(f"value {value!r} is not a valid point ID, valid values are either an unsigned integer or a UUID")


def date(value: str) -> str:
    """A date in RFC 3339, or a day; raises :class:`ApiError` 400."""
    try:
        if not _DATE.fullmatch(value):
            raise ValueError
        datetime.fromisoformat(value)
    except ValueError:
        raise malformed(f"{value!r} is not a date in RFC 3339") from None
    return value


def _any_given(value: dict[str, Any]) -> dict[str, Any]:
    if not any(inner is not None for key, inner in value.items() if key != "key"):
        raise invalid("condition: At least one field condition must be specified")
    return value


def path(value: str) -> str:
    """A path to a payload field, such as `a.b[].c`; raises :class:`ApiError` 400."""
    if not _PATH.fullmatch(value):
        raise malformed(f"Invalid json path: {value!r}")
    return value


def _one(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) != 1:
        raise malformed("a match has exactly one of value, text, text_any, phrase, any, except")
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def shallow(value: Any, above: int = 0) -> Any:
    """Refuse what is nested too deeply for the wheel's log, so many levels below something else."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEPTH_MAX - above):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return value
    raise malformed(f"recursion limit exceeded: at most {DEPTH_MAX} levels")


def _closed(ring: list[Any]) -> list[Any]:
    if len(ring) < 4 or ring[0] != ring[-1]:
        raise malformed("a polygon's ring has at least 4 points, of which the first and the last are the same")
    return ring


PointId = Annotated[int | str, PlainValidator(point_id)]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Natural = Annotated[int, Field(ge=0, lt=2**64)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Date = Annotated[str, AfterValidator(date)]
Path = Annotated[str, AfterValidator(path)]
Several = list[str] | list[Integer]


@with_config(STRICT)
class Match(TypedDict, total=False):
    """What a payload value is compared with."""

    value: bool | Integer | str
    text: str
    text_any: str
    phrase: str
    any: Several
    # `except` is no name in Python; see below.


MatchWords = TypedDict("MatchWords", {"except": Several}, total=False)


class _Match(Match, MatchWords, total=False):
    pass


AnyMatch = with_config(STRICT)(_Match)


@with_config(STRICT)
class Numbers(TypedDict, total=False):
    """A range of numbers."""

    gt: Number | None
    gte: Number | None
    lt: Number | None
    lte: Number | None


@with_config(STRICT)
class Dates(TypedDict, total=False):
    """A range of dates."""

    gt: Date | None
    gte: Date | None
    lt: Date | None
    lte: Date | None


def _range_kind(value: Any) -> str:
    dated = isinstance(value, dict) and any(isinstance(bound, str) for bound in value.values())
    return "dates" if dated else "numbers"


Range = Annotated[Annotated[Numbers, Tag("numbers")] | Annotated[Dates, Tag("dates")], Discriminator(_range_kind)]


@with_config(STRICT)
class Counts(TypedDict, total=False):
    """How many values a field has."""

    gt: Natural | None
    gte: Natural | None
    lt: Natural | None
    lte: Natural | None


def _on_earth(point: Any) -> Any:
    if not (-180 <= point["lon"] <= 180 and -90 <= point["lat"] <= 90):
        raise malformed(f"wrong format of a geo point: lon {point['lon']}, lat {point['lat']}")
    return point


@with_config(STRICT)
class Place(TypedDict):
    """A place."""

    lon: Number
    lat: Number


GeoPoint = Annotated[Place, AfterValidator(_on_earth)]


@with_config(STRICT)
class Box(TypedDict):
    """A box."""

    top_left: GeoPoint
    bottom_right: GeoPoint


@with_config(STRICT)
class Circle(TypedDict):
    """A circle, its radius in metres."""

    center: GeoPoint
    radius: Number


@with_config(STRICT)
class Ring(TypedDict):
    """A closed line."""

    points: Annotated[list[GeoPoint], AfterValidator(_closed)]


@with_config(STRICT)
class Polygon(TypedDict, total=False):
    """A polygon, with holes."""

    exterior: Required[Ring]
    interiors: list[Ring] | None


@with_config(STRICT)
class Field_(TypedDict, total=False):
    """Conditions on one payload field."""

    key: Required[Path]
    match: Annotated[AnyMatch, AfterValidator(_one)] | None  # type: ignore[valid-type]
    range: Range | None
    geo_bounding_box: Box | None
    geo_radius: Circle | None
    geo_polygon: Polygon | None
    values_count: Counts | None
    is_empty: bool | None
    is_null: bool | None


@with_config(STRICT)
class Key(TypedDict):
    """A payload field."""

    key: Path


@with_config(STRICT)
class IsEmpty(TypedDict):
    """Whether a field has no value."""

    is_empty: Key


@with_config(STRICT)
class IsNull(TypedDict):
    """Whether a field is null."""

    is_null: Key


@with_config(STRICT)
class HasId(TypedDict):
    """Points by id."""

    has_id: list[PointId]


@with_config(STRICT)
class HasVector(TypedDict):
    """Points with a vector."""

    has_vector: str


@with_config(STRICT)
class NestedFilter(TypedDict):
    """A filter on each object of a list."""

    key: Path
    filter: Filter


@with_config(STRICT)
class Nested(TypedDict):
    """`{"nested": ...}`."""

    nested: NestedFilter


@with_config(STRICT)
class MinShould(TypedDict):
    """How many conditions must hold."""

    conditions: list[Condition]
    min_count: Natural


@with_config(STRICT)
class Filter(TypedDict, total=False):
    """A filter."""

    must: Annotated[list[Condition], BeforeValidator(_listed)] | None
    should: Annotated[list[Condition], BeforeValidator(_listed)] | None
    must_not: Annotated[list[Condition], BeforeValidator(_listed)] | None
    min_should: MinShould | None


def _kind(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    kinds = ("key", "is_empty", "is_null", "has_id", "has_vector", "nested")
    return next((kind for kind in kinds if kind in value), "filter")


Condition = Annotated[
    Annotated[Field_, AfterValidator(_any_given), Tag("key")]
    | Annotated[IsEmpty, Tag("is_empty")]
    | Annotated[IsNull, Tag("is_null")]
    | Annotated[HasId, Tag("has_id")]
    | Annotated[HasVector, Tag("has_vector")]
    | Annotated[Nested, Tag("nested")]
    | Annotated[Filter, Tag("filter")],
    Discriminator(_kind),
]
WholeFilter = Annotated[Filter, BeforeValidator(lambda body: shallow(body))]
