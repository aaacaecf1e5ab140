"""The numbers of a version, to compare two."""

from __future__ import annotations

import re

_NUMBERS = re.compile(r"\d+(?:\.\d+)*")


def numbers(version: str) -> tuple[int, ...]:
    """The first that a text names: (15, 18) of `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0)`; none is less than any."""
    found = _NUMBERS.search(version)
    return tuple(map(int, found[0].split("."))) if found else ()
