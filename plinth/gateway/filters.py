"""Filters of a search (BR-005), checked by a schema and bounded; `plinth.gateway.qdrant_filters` has them for Qdrant.

A filter is an object; all of its keys hold at once:

    match      {"source": "web", "year": [2024, 2025]}    a value, or one of several
    range      {"timestamp": {"gte": "2025-01-01"}}       numbers, or dates of RFC 3339
    must, should, must_not                                filters, in a list: all, any, none of them
    nested     {"key": "parts", "filter": {...}}          one element of a list of objects meets it
    is_empty   ["reviewed_at"]                            fields that are not there, null or an empty list

`must_not` also takes an object of values, as `match` does: {"must_not": {"status": "deleted"}}.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StrictStr, model_validator

from plinth.system.strict_model import StrictModel

DEPTH_MAX = 8
CONDITIONS_MAX = 256
VALUES_MAX = 1000
TEXT_MAX = 4096
_PATH = re.compile(r'(?:"[^"\0]+"|[\w-]+)(?:\[\d*\])*(?:\.(?:"[^"\0]+"|[\w-]+)(?:\[\d*\])*)*')
_DATE = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)?)?")
_KEYS = frozenset({"match", "range", "must", "should", "must_not", "nested", "is_empty"})


def _is_path(text: str) -> str:
    if len(text) > 255 or not _PATH.fullmatch(text):
        raise ValueError("a field is a path such as `source` or `meta.tags[].name`")
    return text


def _is_date(text: str) -> str:
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError("a bound is a number or a date of RFC 3339, such as 2025-01-01T00:00:00Z") from None
    return text


Path = Annotated[str, AfterValidator(_is_path)]
Text = Annotated[StrictStr, Field(max_length=TEXT_MAX)]
Integer = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Value = StrictBool | Integer | Text
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Bound = Number | Annotated[StrictStr, AfterValidator(_is_date)]


class Range(StrictModel):
    """Bounds of a field: numbers, or dates, not both."""

    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        bounds = self.bounds
        if not bounds:
            raise ValueError("a range has gt, gte, lt or lte")
        if len({isinstance(bound, str) for bound in bounds.values()}) > 1:
            raise ValueError("the bounds of a range are numbers or dates, not both")
        return self

    @property
    def bounds(self) -> dict[str, float | str]:
        """Those that are given, by their names."""
        return {name: bound for name in ("gt", "gte", "lt", "lte") if (bound := getattr(self, name)) is not None}


class Nested(StrictModel):
    """One element of the list at ``key`` meets the filter."""

    key: Path
    filter: Filter


class Filter(StrictModel):
    """Conditions that hold at once."""

    match: dict[Path, Value | Annotated[list[Value], Field(min_length=1, max_length=VALUES_MAX)]] = Field(
        default_factory=dict
    )
    range: dict[Path, Range] = Field(default_factory=dict)
    must: list[Filter] = Field(default_factory=list)
    should: list[Filter] = Field(default_factory=list)
    must_not: list[Filter] = Field(default_factory=list)
    nested: list[Nested] = Field(default_factory=list)
    is_empty: list[Path] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        short = dict(data)
        excluded = data.get("must_not")
        if isinstance(excluded, dict):
            short["must_not"] = [excluded if _KEYS & excluded.keys() else {"match": excluded}]
        if isinstance(data.get("nested"), dict):
            short["nested"] = [data["nested"]]
        return short

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.depth > DEPTH_MAX:
            raise ValueError(f"a filter is {DEPTH_MAX} levels deep at most")
        if self.conditions > CONDITIONS_MAX:
            raise ValueError(f"a filter has {CONDITIONS_MAX} conditions at most")
        return self

    @property
    def _inner(self) -> list[Filter]:
        return [*self.must, *self.should, *self.must_not, *(nested.filter for nested in self.nested)]

    @property
    def depth(self) -> int:
        """Levels, this one counted."""
        return 1 + max((inner.depth for inner in self._inner), default=0)

    @property
    def conditions(self) -> int:
        """Conditions on fields, at every level."""
        own = len(self.match) + len(self.range) + len(self.is_empty) + len(self.nested)
        return own + sum(inner.conditions for inner in self._inner)
