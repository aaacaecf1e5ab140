"""Extensions that a restore may make: as a superuser, for who owns a database may not make them all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from plinth.backup.stores.postgres.dump_archive import Extension

# They are of Postgres' own distribution or pgvector and PostGIS, and reach no file, no program and no other server.
ALLOWED = (
    "bloom", "btree_gin", "btree_gist", "citext", "cube", "dict_int", "earthdistance", "fuzzystrmatch", "hstore",
    "intarray", "isn", "lo", "ltree", "pg_stat_statements", "pg_trgm", "pgcrypto", "plpgsql", "postgis", "seg",
    "tablefunc", "tcn", "tsm_system_rows", "tsm_system_time", "unaccent", "uuid-ossp", "vector",
)  # fmt: skip

# Schemas of every database.
_THERE = ("public", "pg_catalog")


def refusal(what: str, extensions: Iterable[str], allowed: Collection[str], trusted: Collection[str]) -> str | None:
    """A sentence for the extensions that a restore may not make; ``trusted`` are those that any owner may."""
    names = sorted(name for name in extensions if name not in allowed and name not in trusted)
    if not names:
        return None
    return (
        f"{what} needs the extension {', '.join(names)}, which only a superuser makes and a restore does not; "
        "see what it can do, then add it to plinth:backup.extensions and run `plinth up`."
    )


def trusted(connection: psycopg.Connection[Any]) -> set[str]:
    """The extensions that a server lets the owner of a database make."""
    rows = connection.execute("SELECT DISTINCT name FROM pg_available_extension_versions WHERE trusted").fetchall()
    return {str(row[0]) for row in rows}


def create(
    connection: psycopg.Connection[Any], extensions: Sequence[Extension], owner: str, *, servers: bool
) -> list[str]:
    """Make extensions as the superuser of the connection, in a database that nobody else has been in.

    The schemas that were made for them, which belong to ``owner``; who may use the wrappers where the dump has foreign
    ``servers``, as whoever made these could.
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
