"""The schema of the database of jobs: numbered SQL files, each applied once.

A gateway of the version before runs on while this is applied and after. So a file adds tables, indexes and columns that
have defaults; it never renames, drops or narrows what is there, and one that was released is never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import psycopg

_LOCK = int.from_bytes(b"plinth.j", "big")
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


def migrations() -> Mapping[int, str]:
    """Each file's SQL by its number, in order."""
    directory = files("plinth.gateway.jobs") / "migrations"
    names = sorted(file.name for file in directory.iterdir() if file.name.endswith(".sql"))
    return {int(name.partition("_")[0]): (directory / name).read_text() for name in names}


def migrate(connection: psycopg.Connection[Any]) -> tuple[int, ...]:
    """Apply what the database lacks, all or nothing; returns the numbers of those.

    Two that run this at once do it one after the other. A database that a newer version migrated stays as it is.
    """
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        cursor.execute(_TABLE)
        applied = {row[0] for row in cursor.execute("SELECT version FROM schema_migrations").fetchall()}
        pending = {version: sql for version, sql in migrations().items() if version not in applied}
        for version, sql in pending.items():
            cursor.execute(sql.encode())
            cursor.execute("INSERT INTO schema_migrations (version) VALUES (%s)", (version,))
    return tuple(pending)
