"""Version numbers, as tuples that compare."""

from __future__ import annotations

import re

_NUMBERS = re.compile(r"\d+(?:\.\d+)*")


def numbers(version: str) -> tuple[int, ...]:
    """Return the first version in a text: (15, 18) of `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0)`; () without one."""
    found = _NUMBERS.search(version)
    return tuple(map(int, found[0].split("."))) if found else ()
