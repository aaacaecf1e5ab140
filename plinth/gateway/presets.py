"""Filters that a collection's file declares by name (S2-04), filled with what a caller asks for.

    presets:
      mine:
        match: {symbol: "{symbol?}"}
        range: {closed_at: {gte: "{since?}", lt: "{until?}"}}

A `{parameter}` is replaced by the value given; one with a `?` may be left out, and its condition goes with it. `{user}`
and `{organisation}` are the caller's, and no parameter sets them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from plinth.gateway.caller import Caller
from plinth.gateway.errors import invalid
from plinth.gateway.filters import Filter

_PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)(\?)?\}")
_ABSENT = object()


def parameters_of(template: Any) -> set[str]:
    """The names of the parameters in a filter's template."""
    if isinstance(template, str):
        placeholder = _PLACEHOLDER.fullmatch(template)
        return {placeholder[1]} if placeholder else set()
    if isinstance(template, Mapping):
        return set().union(*(parameters_of(value) for value in template.values()))
    if isinstance(template, list):
        return set().union(*(parameters_of(value) for value in template))
    return set()


def filled(
    presets: Mapping[str, Mapping[str, Any]], name: str, parameters: Mapping[str, Any], caller: Caller
) -> Filter:
    """The filter of a preset; raises for one that is not there, or with parameters that it does not take."""
    if name not in presets:
        raise invalid("preset", "the collection declares no preset of this name")
    own = {"user": caller.user, "organisation": caller.organisation}
    for unknown in sorted(set(parameters) - (parameters_of(presets[name]) - own.keys())):
        raise invalid(f"parameters.{unknown}", "the preset takes no parameter of this name")
    content = _substituted(presets[name], {**parameters, **own})
    try:
        return Filter.model_validate({} if content is _ABSENT else content)
    except ValidationError:
        raise invalid("parameters", "with these values the preset is no filter") from None


def _substituted(template: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(template, str) and (placeholder := _PLACEHOLDER.fullmatch(template)):
        if placeholder[1] in values:
            return values[placeholder[1]]
        if placeholder[2]:
            return _ABSENT
        raise invalid(f"parameters.{placeholder[1]}", "the preset needs it")
    if isinstance(template, Mapping):
        content = {key: _substituted(value, values) for key, value in template.items()}
        present: Any = {key: value for key, value in content.items() if value is not _ABSENT}
    elif isinstance(template, list):
        present = [value for item in template if (value := _substituted(item, values)) is not _ABSENT]
    else:
        return template
    return present if present or not template else _ABSENT
