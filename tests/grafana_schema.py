"""A dashboard against Grafana's schema: its keys, and the type of each value, by the models generated from it."""

from __future__ import annotations

import enum
import json
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def complaints(document: dict[str, Any]) -> list[str]:
    """What Grafana's schema does not know, or knows as something else, with its place."""
    register_default_plugins()
    try:
        dashboard = Dashboard.from_json(document)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        return [f"it cannot be read: {error}"]
    known = json.loads(JSONEncoder().encode(dashboard))
    return [*_unknown(document, known, ""), *_untyped(dashboard, Dashboard, "")]


def _unknown(given: Any, known: Any, at: str) -> Iterator[str]:
    """What was lost when it was read and written again."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key in given:
            if key not in known:
                yield f"{at}/{key} is unknown"
            else:
                yield from _unknown(given[key], known[key], f"{at}/{key}")
    elif isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        for place, (one, other) in enumerate(zip(given, known, strict=True)):
            yield from _unknown(one, other, f"{at}/{place}")
    elif given != known:
        yield f"{at} is {given!r}, and is read as {known!r}"


def _untyped(value: Any, wanted: Any, at: str) -> Iterator[str]:
    """What has another type than the schema's."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted in (Any, object) or wanted is type(value):
        pass
    elif origin in (Union, types.UnionType):
        found = [list(_untyped(value, one, at)) for one in inner if value is None or one is not types.NoneType]
        yield from min(found, key=len)
        return
    elif origin is Literal:
        if value not in inner:
            yield f"{at} is {value!r}, not one of {inner}"
    elif origin is list and isinstance(value, list):
        for place, one in enumerate(value):
            yield from _untyped(one, inner[0], f"{at}/{place}")
    elif origin is dict and isinstance(value, dict):
        for key, one in value.items():
            yield from _untyped(one, inner[1], f"{at}/{key}")
    elif isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        if value not in [choice.value for choice in wanted]:
            yield f"{at} is {value!r}, not one of {[choice.value for choice in wanted]}"
    elif not (wanted is float and type(value) is int) and not (isinstance(wanted, type) and isinstance(value, wanted)):
        yield f"{at} is {value!r}, not {wanted}"
    if type(value).__module__.startswith("grafana_foundation_sdk.models") and not isinstance(value, enum.Enum):
        hints = get_type_hints(type(value))
        for name, one in vars(value).items():
            yield from _untyped(one, hints[name], f"{at}/{name}")
