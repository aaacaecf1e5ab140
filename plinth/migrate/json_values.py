"""Values of other stores as equivalent JSON: nothing is rounded, cut or guessed."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

MOMENT = re.compile(r"(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(\+00)?")
LEAST, MOST = -(2**63), 2**64 - 1
# Of 64 bits, with a sign.
MOST_DIGITS = 20


class Spelled(str):
    """A number as text, in its own digits: no JSON number that others can read is equal to it."""

    __slots__ = ()


def spelled(payload: Mapping[str, Any]) -> list[str]:
    """Return the fields of a payload in which a number became text."""
    return [name for name, value in payload.items() if _holds_spelled(value)]


def _holds_spelled(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_spelled(inner) for inner in value.values())
    if isinstance(value, list):
        return any(_holds_spelled(inner) for inner in value)
    return isinstance(value, Spelled)


def whole(text: str) -> int | str:
    """Convert a whole number, or keep its text if it exceeds 64 bits."""
    if len(text) > MOST_DIGITS:
        return Spelled(text)
    value = int(text)
    return value if LEAST <= value <= MOST else Spelled(text)


def number(text: str) -> int | float | str:
    """Convert a decimal number if JSON holds exactly it, else keep its text: '0.1' is 0.1, 20 digits stay text."""
    try:
        exact = Decimal(text)
    except InvalidOperation:
        return Spelled(text)
    if not exact.is_finite():
        return Spelled(text)
    if exact == exact.to_integral_value() and abs(exact) <= MOST and "." not in text and "E" not in text.upper():
        return whole(text)
    near = float(text)
    return near if math.isfinite(near) and Decimal(repr(near)) == exact else Spelled(text)


def real(text: str) -> float | str:
    """Convert a floating-point number; JSON has no NaN and no infinity, so these stay text."""
    value = float(text)
    return value if math.isfinite(value) else Spelled(text)


def moment(text: str) -> str:
    """Convert Postgres' text of a time (zone UTC) to RFC 3339 with microseconds; 'infinity' and years BC stay."""
    found = MOMENT.fullmatch(text)
    if found is None:
        return text
    day, time, fraction, zone = found.groups()
    return f"{day}T{time}.{(fraction or '').ljust(6, '0')}{'Z' if zone else ''}"


def document(text: str | bytes) -> Any:
    """Parse JSON; a number that exceeds 64 bits becomes text. Raises ValueError for a duplicate key."""
    return json.loads(text, parse_int=whole, parse_float=number, object_pairs_hook=_once, parse_constant=_none)


def _none(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' stands twice")
    return made


def binary(value: bytes) -> str:
    """Encode bytes as Base64."""
    return base64.b64encode(value).decode()


def each(convert: Callable[[Any], Any], value: Any) -> Any:
    """Apply a conversion to a list of any depth; a missing value stays missing."""
    if value is None:
        return None
    if isinstance(value, list):
        return [each(convert, inner) for inner in value]
    return convert(value)


def python_value(value: Any) -> Any:
    """Convert a value of Python's own types, such as Arrow returns, to JSON."""
    if isinstance(value, dict):
        return {str(key): python_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [python_value(inner) for inner in value]
    if isinstance(value, datetime):
        zoned = value.astimezone(UTC) if value.tzinfo else value
        return zoned.replace(tzinfo=None).isoformat(timespec="microseconds") + ("Z" if value.tzinfo else "")
    if isinstance(value, Decimal):
        return number(str(value))
    if isinstance(value, float):
        return real(repr(value))
    if isinstance(value, bytes):
        return binary(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)
