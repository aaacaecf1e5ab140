"""Roles out of a `pg_dumpall --globals-only`: those that a server lacks; the others have passwords of their own."""

from __future__ import annotations

import re
from collections.abc import Collection

_NAME = r'("(?:[^"]|"")+"|[^\s";]+)'
_MADE = re.compile(rf"^CREATE ROLE {_NAME};$")
_ALTERED = re.compile(rf"^ALTER ROLE {_NAME} .*;$")
_GRANTED = re.compile(rf"^GRANT {_NAME} TO {_NAME}(?P<options>.*?)(?: GRANTED BY {_NAME})?;$")


def roles(globals_sql: str) -> list[str]:
    """The roles that it makes."""
    return [_plain(found[1]) for line in globals_sql.splitlines() if (found := _MADE.match(line))]


def statements(globals_sql: str, missing: Collection[str]) -> list[str]:
    """What makes the ``missing`` roles as they were, memberships last."""
    made, granted = [], []
    for line in globals_sql.splitlines():
        found = _MADE.match(line) or _ALTERED.match(line)
        if found and _plain(found[1]) in missing:
            made.append(line)
            continue
        grant = _GRANTED.match(line)
        if grant and _plain(grant[2]) in missing:
            # Whoever granted it there need not exist here.
            granted.append(f"GRANT {grant[1]} TO {grant[2]}{grant['options']};")
    return made + granted


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
