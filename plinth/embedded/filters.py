"""Filters of the REST API as the wheel's objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import qdrant_edge as edge

from plinth.embedded.errors import malformed


def filter_of(body: Any) -> edge.Filter | None:
    """A filter; None where the request has none."""
    return None if body is None else filter_from(body)


def filter_from(body: Any) -> edge.Filter:
    """A filter that :mod:`conditions` has checked."""
    minimum = body.get("min_should")
    return edge.Filter(
        must=_conditions(body.get("must")),
        should=_conditions(body.get("should")),
        must_not=_conditions(body.get("must_not")),
        min_should=edge.MinShould(_conditions(minimum["conditions"]) or [], int(minimum["min_count"]))
        if minimum
        else None,
    )


def keys_of(body: Any) -> Iterator[str]:
    """Every payload key that a filter asks about."""
    for condition in _each(body):
        if "key" in condition and "filter" not in condition.get("nested", {}):
            yield condition["key"]
        yield from keys_of(condition if {"must", "should", "must_not"} & condition.keys() else None)


def demands(body: Any, fields: set[str]) -> bool:
    """Whether a filter can only match points with given values of one of these fields."""
    must = body.get("must") if isinstance(body, dict) else None
    for condition in [must] if isinstance(must, dict) else must or []:
        match = condition.get("match") or {}
        if condition.get("key") in fields and ("value" in match or "any" in match):
            return True
        if demands(condition, fields):
            return True
    # Where one of several has to hold, each of them has to name a value.
    should = body.get("should") if isinstance(body, dict) else None
    return isinstance(should, list) and bool(should) and all(demands(each, fields) for each in should)


def _each(body: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(body, dict):
        return
    for clause in ("must", "should", "must_not"):
        inner = body.get(clause)
        yield from [inner] if isinstance(inner, dict) else inner or []
    yield from (body.get("min_should") or {}).get("conditions", [])


def _conditions(body: Any) -> list[Any] | None:
    if body is None:
        return None
    return [_condition(condition) for condition in ([body] if isinstance(body, dict) else body)]


def _condition(body: Any) -> Any:
    if "has_id" in body:
        return edge.HasIdCondition(set(body["has_id"]))
    if "has_vector" in body:
        return edge.HasVectorCondition(body["has_vector"])
    if isinstance(body.get("is_empty"), dict):
        return edge.IsEmptyCondition(body["is_empty"]["key"])
    if isinstance(body.get("is_null"), dict):
        return edge.IsNullCondition(body["is_null"]["key"])
    if "nested" in body:
        return edge.NestedCondition(body["nested"]["key"], filter_from(body["nested"]["filter"]))
    if "key" in body:
        return _field(body)
    return filter_from(body)


def _field(body: dict[str, Any]) -> edge.FieldCondition:
    wanted: dict[str, Callable[[Any], Any]] = {
        "match": _match,
        "range": _range,
        "geo_bounding_box": lambda box: edge.GeoBoundingBox(_geo(box["top_left"]), _geo(box["bottom_right"])),
        "geo_radius": lambda circle: edge.GeoRadius(_geo(circle["center"]), float(circle["radius"])),
        "geo_polygon": lambda polygon: edge.GeoPolygon(
            [_geo(point) for point in polygon["exterior"]["points"]],
            [[_geo(point) for point in ring["points"]] for ring in polygon.get("interiors") or []],
        ),
        "values_count": lambda count: edge.ValuesCount(**count),
        "is_empty": bool,
        "is_null": bool,
    }
    given = {key: value for key, value in body.items() if key != "key" and value is not None}
    unknown = set(given) - set(wanted)
    if unknown or not given:
        raise malformed(f"a condition on `{body['key']}` takes one of {', '.join(wanted)}")
    return edge.FieldCondition(body["key"], **{key: wanted[key](value) for key, value in given.items()})


def _match(body: dict[str, Any]) -> Any:
    kinds: dict[str, Callable[[Any], Any]] = {
        # The wheel reads a Python bool as the integer 1 or 0; numpy's is taken for what it is.
        "value": lambda value: edge.MatchValue(cast("bool", np.bool_(value)) if isinstance(value, bool) else value),
        "text": edge.MatchText,
        "text_any": edge.MatchTextAny,
        "phrase": edge.MatchPhrase,
        "any": edge.MatchAny,
        "except": edge.MatchExcept,
    }
    for kind, make in kinds.items():
        if kind in body:
            return make(body[kind])
    raise malformed(f"a match takes one of {', '.join(kinds)}")


def _range(body: dict[str, Any]) -> Any:
    bounds = {key: body[key] for key in ("gt", "gte", "lt", "lte") if body.get(key) is not None}
    if any(isinstance(bound, str) for bound in bounds.values()):
        return edge.RangeDateTime(**bounds)
    return edge.RangeFloat(**{key: float(bound) for key, bound in bounds.items()})


def _geo(point: dict[str, Any]) -> edge.GeoPoint:
    return edge.GeoPoint(float(point["lon"]), float(point["lat"]))
