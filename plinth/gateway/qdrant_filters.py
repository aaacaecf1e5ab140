"""Filters as Qdrant's REST has them. Applications check filters without this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from plinth.gateway.filters import Filter, Range

# What Qdrant calls a filter, and a condition of one: an object of JSON. A filter is a condition too.
Condition = dict[str, Any]


def qdrant_filter(filter: Filter) -> Condition:
    """A filter as Qdrant has it."""
    must: list[Condition] = [_match(key, value) for key, value in filter.match.items()]
    must += [_range(key, bounds) for key, bounds in filter.range.items()]
    must += [{"is_empty": {"key": key}} for key in filter.is_empty]
    must += [{"nested": {"key": nested.key, "filter": qdrant_filter(nested.filter)}} for nested in filter.nested]
    must += [qdrant_filter(inner) for inner in filter.must]
    clauses = {
        "must": must,
        "should": [qdrant_filter(inner) for inner in filter.should],
        "must_not": [qdrant_filter(inner) for inner in filter.must_not],
    }
    return {name: conditions for name, conditions in clauses.items() if conditions}


def has_values(values: Mapping[str, Any]) -> list[Condition]:
    """A condition for each field that has exactly this value."""
    return [{"key": key, "match": {"value": value}} for key, value in values.items()]


def has_id(ids: Iterable[str]) -> Condition:
    """The points of these ids, as Qdrant has them."""
    return {"must": [{"has_id": list(ids)}]}


def has_words(key: str, text: str) -> Condition:
    """The points whose text at a field has these words."""
    return {"key": key, "match": {"text": text}}


def _match(key: str, value: Any) -> Condition:
    if not isinstance(value, list):
        return {"key": key, "match": {"value": value}}
    # Qdrant's `any` takes one kind of values, and no booleans.
    texts = [one for one in value if isinstance(one, str)]
    numbers = [one for one in value if isinstance(one, int) and not isinstance(one, bool)]
    flags = [one for one in value if isinstance(one, bool)]
    conditions: list[Condition] = [{"key": key, "match": {"any": values}} for values in (texts, numbers) if values]
    conditions += [{"key": key, "match": {"value": flag}} for flag in set(flags)]
    return conditions[0] if len(conditions) == 1 else {"should": conditions}


def _range(key: str, bounds: Range) -> Condition:
    return {"key": key, "range": {name: _bound(bound) for name, bound in bounds.bounds.items()}}


def _bound(bound: float | str) -> float | str:
    # Each form of a date that a caller may write becomes the one that Qdrant reads.
    return datetime.fromisoformat(bound.upper()).isoformat() if isinstance(bound, str) else bound
