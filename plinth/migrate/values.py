"""Values of other stores as JSON that says the same: nothing is rounded, cut or guessed."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

MOMENT = re.compile(r"(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(\+00)?")
LEAST, MOST = -(2**63), 2**64 - 1


def whole(text: str) -> int | str:
    """A whole number, or its text where 64 bits do not hold it."""
    value = int(text)
    return value if LEAST <= value <= MOST else text


def number(text: str) -> int | float | str:
    """A decimal number where JSON holds exactly that number, else its text: '0.1' is 0.1, 20 digits stay text."""
    exact = Decimal(text)
    if not exact.is_finite():
        return text
    if exact == exact.to_integral_value() and abs(exact) <= MOST and "." not in text and "E" not in text.upper():
        return whole(text)
    near = float(text)
    return near if math.isfinite(near) and Decimal(repr(near)) == exact else text


def real(text: str) -> float | str:
    """A floating-point number; JSON has no NaN and no infinity, so these are text."""
    value = float(text)
    return value if math.isfinite(value) else text


def moment(text: str) -> str:
    """Postgres' text of a moment (zone UTC) in RFC 3339 with microseconds; 'infinity' and years BC as they are."""
    found = MOMENT.fullmatch(text)
    if found is None:
        return text
    day, time, fraction, zone = found.groups()
    return f"{day}T{time}.{(fraction or '').ljust(6, '0')}{'Z' if zone else ''}"


def document(text: str) -> Any:
    """JSON as it is; a number that 64 bits do not hold is text."""
    return json.loads(text, parse_int=whole, parse_float=real)


def binary(value: bytes) -> str:
    """Base64."""
    return base64.b64encode(value).decode()


def each(convert: Callable[[Any], Any], value: Any) -> Any:
    """A conversion over a list of any depth; a missing value stays one."""
    if value is None:
        return None
    if isinstance(value, list):
        return [each(convert, inner) for inner in value]
    return convert(value)


def python_value(value: Any) -> Any:
    """A value of Python's own types, such as Arrow gives, as JSON."""
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
