"""The outputs of an environment as rows for people: a dotted key and its value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def rows(outputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One row for each value that is set, in the order of the outputs; a value of several lines is only named."""
    return list(_rows(outputs, ""))


def _rows(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _rows(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _rows(inner, f"{key}[{number}]")
    elif value is not None:
        yield key, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    lines = str(value).strip().splitlines()
    return str(value) if len(lines) <= 1 else f"({len(lines)} lines; --json prints them)"
