"""Filters as Qdrant has them. Applications check filters without this, and without Qdrant's client."""

from __future__ import annotations

from typing import Any

from qdrant_client import models

from plinth.gateway.filters import Filter, Range


def qdrant_filter(filter: Filter) -> models.Filter:
    """A filter as Qdrant has it."""
    must: list[Any] = [_match(key, value) for key, value in filter.match.items()]
    must += [_range(key, bounds) for key, bounds in filter.range.items()]
    must += [models.IsEmptyCondition(is_empty=models.PayloadField(key=key)) for key in filter.is_empty]
    must += [
        models.NestedCondition(nested=models.Nested(key=nested.key, filter=qdrant_filter(nested.filter)))
        for nested in filter.nested
    ]
    must += [qdrant_filter(inner) for inner in filter.must]
    return models.Filter(
        must=must or None,
        should=[qdrant_filter(inner) for inner in filter.should] or None,
        must_not=[qdrant_filter(inner) for inner in filter.must_not] or None,
    )


def _match(key: str, value: Any) -> Any:
    if not isinstance(value, list):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    # Qdrant's `any` takes one kind of values, and no booleans.
    texts = [one for one in value if isinstance(one, str)]
    numbers = [one for one in value if isinstance(one, int) and not isinstance(one, bool)]
    flags = [one for one in value if isinstance(one, bool)]
    conditions: list[Any] = [
        models.FieldCondition(key=key, match=models.MatchAny(any=one_kind)) for one_kind in (texts, numbers) if one_kind
    ]
    conditions += [models.FieldCondition(key=key, match=models.MatchValue(value=flag)) for flag in set(flags)]
    return conditions[0] if len(conditions) == 1 else models.Filter(should=conditions)


def _range(key: str, bounds: Range) -> models.FieldCondition:
    given = bounds.bounds
    if any(isinstance(bound, str) for bound in given.values()):
        return models.FieldCondition(key=key, range=models.DatetimeRange.model_validate(given))
    return models.FieldCondition(key=key, range=models.Range.model_validate(given))
