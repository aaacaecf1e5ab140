"""Entering Postgres: the login comes from a file or the environment, and no password is ever repeated."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from plinth.errors import UserError
from plinth.migrate.sources.pg_catalog import Connection

DSN_VARIABLE = "PLINTH_SOURCE_DSN"
CONNECT_TIMEOUT_S = 15
TRANSACTION_POOLER = "6543"
SESSION = (
    "SET statement_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",
    "SET timezone = 'UTC'",
    "SET datestyle = 'ISO, YMD'",
    "SET intervalstyle = 'iso_8601'",
    "SET extra_float_digits = 1",
    # Rows that a policy hides would be left behind without a word; so such a read is an error.
    "SET row_security = off",
)


def conninfo(dsn_file: str | None) -> str:
    """The connection string; refuses one that keeps no session."""
    if dsn_file is not None:
        try:
            text = Path(dsn_file).read_text().strip()
        except OSError as error:
            raise UserError(f"--dsn-file: {dsn_file} cannot be read: {error.strerror}.") from error
    else:
        text = os.environ.get(DSN_VARIABLE, "")
    try:
        parts = conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        # The words of libpq would repeat the text, and the password with it.
        where = dsn_file or DSN_VARIABLE
        raise UserError(
            f"{where} holds no connection string; expected postgresql://user:password@host:5432/database or "
            "host=... dbname=... user=... password=..., with special characters of a password percent-encoded."
        ) from None
    if str(parts.get("port") or os.environ.get("PGPORT")) == TRANSACTION_POOLER:
        raise UserError(
            f"Port {TRANSACTION_POOLER} is Supabase's transaction pooler, which keeps no session and so no snapshot; "
            "use the direct host or the session pooler, both on port 5432."
        )
    return text


def connect(conninfo: str) -> Connection:
    """A connection that reads one snapshot, with nothing cut short and nothing hidden."""
    try:
        connection = psycopg.connect(
            conninfo, connect_timeout=CONNECT_TIMEOUT_S, application_name="plinth migrate", autocommit=True
        )
    except psycopg.OperationalError as error:
        words = " ".join(str(error).split())
        raise UserError(
            f"Postgres cannot be entered: {words}. Put the connection string into a file for --dsn-file, or into "
            f"{DSN_VARIABLE}.",
            exit_code=1,
        ) from error
    for statement in SESSION:
        connection.execute(statement)
    connection.autocommit = False
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    return connection


def lost(error: psycopg.Error) -> UserError:
    """What a failure of Postgres means to the person."""
    words = " ".join(str(error).split())
    if "row-level security" in words:
        return UserError(
            f"Policies hide rows from this role ({words}); connect as the table's owner or a role with BYPASSRLS "
            "(on Supabase: postgres).",
            exit_code=1,
        )
    return UserError(f"Postgres: {words}. When that is mended, run the same command again: it goes on.", exit_code=1)
