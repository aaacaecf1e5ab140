"""The extensions that a restore may create as a superuser, since the owner of a database cannot create them all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from plinth.backup.stores.postgres.dump_archive import Extension

# They are in Postgres' own distribution, or are pgvector and PostGIS, and access no file, program or other server.
ALLOWED = (
    "bloom", "btree_gin", "btree_gist", "citext", "cube", "dict_int", "earthdistance", "fuzzystrmatch", "hstore",
    "intarray", "isn", "lo", "ltree", "pg_stat_statements", "pg_trgm", "pgcrypto", "plpgsql", "postgis", "seg",
    "tablefunc", "tcn", "tsm_system_rows", "tsm_system_time", "unaccent", "uuid-ossp", "vector",
)  # fmt: skip

# Schemas that every database has.
_THERE = ("public", "pg_catalog")


def refusal(what: str, extensions: Iterable[str], allowed: Collection[str], trusted: Collection[str]) -> str | None:
    """Return a message about extensions that a restore may not create; any owner may create ``trusted`` ones."""
    names = sorted(name for name in extensions if name not in allowed and name not in trusted)
    if not names:
        return None
    return (
        f"{what} needs the extension {', '.join(names)}, which only a superuser makes and a restore does not; "
        "see what it can do, then add it to plinth:backup.extensions and run `plinth up`."
    )


def trusted(connection: psycopg.Connection[Any]) -> set[str]:
    """Return the extensions that a server lets the owner of a database create."""
    rows = connection.execute("SELECT DISTINCT name FROM pg_available_extension_versions WHERE trusted").fetchall()
    return {str(row[0]) for row in rows}


def create(
    connection: psycopg.Connection[Any], extensions: Sequence[Extension], owner: str, *, servers: bool
) -> list[str]:
    """Create extensions as the superuser of the connection, in a database that nobody else has connected to.

    New schemas for them belong to ``owner``. If the dump has foreign ``servers``, the owner may use the foreign-data
    wrappers, as the creator of the extension could.
    """
    made: list[str] = []
    for extension in extensions:
        schema = extension.schema
        if schema not in (*_THERE, *made):
            connection.execute(
                sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(sql.Identifier(schema), sql.Identifier(owner))
            )
            made.append(schema)
        connection.execute(
            sql.SQL("CREATE EXTENSION IF NOT EXISTS {} WITH SCHEMA {}").format(
                sql.Identifier(extension.name), sql.Identifier(schema)
            )
        )
    if servers:
        for (wrapper,) in connection.execute("SELECT fdwname FROM pg_foreign_data_wrapper").fetchall():
            connection.execute(
                sql.SQL("GRANT USAGE ON FOREIGN DATA WRAPPER {} TO {}").format(
                    sql.Identifier(str(wrapper)), sql.Identifier(owner)
                )
            )
    return made
