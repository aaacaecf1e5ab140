"""What tests do in databases as the superuser, whose own connections find nothing but Postgres' own by a bare name."""

from __future__ import annotations

from typing import Any

import psycopg

from plinth.admin.postgres import Server


def enter(server: Server, database: str) -> psycopg.Connection[Any]:
    """A connection that finds what an application's finds."""
    connection = server.connect(database)
    connection.execute("RESET search_path")
    return connection
