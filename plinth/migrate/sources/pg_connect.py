"""Connect to Postgres: the login comes from a file or the environment, and no message repeats a password."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from plinth.errors import UserError
from plinth.migrate.sources.pg_catalog import Connection
from plinth.system.yaml_files import read_text

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
    # Rows that a policy hides would be skipped silently; so such a read is an error.
    "SET row_security = off",
)
_URL = re.compile(r"postgres(?:ql)?://", re.IGNORECASE)
# Roles that give access to the files and programs of the server's machine. The login is checked as well as the current
# role, for a database's owner may set another role for a session.
_PRIVILEGED = """
SELECT r.rolname FROM pg_catalog.pg_roles r
WHERE r.rolname OPERATOR(pg_catalog.=) ANY (ARRAY[%s, session_user, current_user]::pg_catalog.name[])
AND (r.rolsuper OR EXISTS (
  SELECT 1 FROM pg_catalog.pg_roles g WHERE pg_catalog.pg_has_role(r.oid, g.oid, 'MEMBER') AND (g.rolsuper OR
  g.rolname OPERATOR(pg_catalog.=)
  ANY ('{pg_execute_server_program,pg_read_server_files,pg_write_server_files}'::pg_catalog.name[]))
))
"""


def conninfo(dsn_file: str | None) -> str:
    """Return the connection string.

    It refuses one that keeps no session, and one whose password would be parsed as its host.
    """
    text = os.environ.get(DSN_VARIABLE, "") if dsn_file is None else read_text(Path(dsn_file)).strip()
    where = dsn_file or DSN_VARIABLE
    if _ambiguous(text):
        raise UserError(
            f"{where} holds a connection string with more than one @, or with a / or a space before it: libpq would "
            "take a part of the password for the host; write an @ of a password as %40, a / as %2F, a space as %20."
        )
    try:
        parts = conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        # libpq's message would repeat the text, and the password with it.
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
    """Open a connection that reads one snapshot, with nothing truncated or hidden; refuses a superuser's."""
    try:
        connection = psycopg.connect(
            conninfo, connect_timeout=CONNECT_TIMEOUT_S, application_name="plinth migrate", autocommit=True
        )
    except psycopg.OperationalError as error:
        raise UserError(
            f"Postgres cannot be entered: {_masked(str(error), conninfo)}. Put the connection string into a file for "
            f"--dsn-file, or into {DSN_VARIABLE}.",
            exit_code=1,
        ) from error
    _refuse_superuser(connection)
    for statement in SESSION:
        connection.execute(statement)
    connection.autocommit = False
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    return connection


def lost(error: psycopg.Error) -> UserError:
    """Translate a failure of Postgres into a message for the user."""
    words = " ".join(str(error).split())
    if "row-level security" in words:
        return UserError(
            f"Policies hide rows from this role ({words}); connect as the table's owner or a role with BYPASSRLS "
            "(on Supabase: postgres).",
            exit_code=1,
        )
    return UserError(f"Postgres: {words}. When that is mended, run the same command again: it goes on.", exit_code=1)


def _refuse_superuser(connection: Connection) -> None:
    """Refuse a superuser: reading a table runs its owner's code (views, casts, index expressions) as the reader."""
    row = connection.execute(_PRIVILEGED, (connection.info.user,)).fetchone()
    if row:
        connection.close()
        raise UserError(
            f"{row[0]} is a superuser, or may run programs on the server, and reading a table runs what the table's "
            "owner wrote; read as the owner, or as a role for it: CREATE ROLE reader LOGIN BYPASSRLS PASSWORD '...'; "
            "GRANT pg_read_all_data TO reader."
        )


def _ambiguous(text: str) -> bool:
    """Whether a URL has a login that ends elsewhere than at its only @."""
    match = _URL.match(text)
    if match is None:
        return False
    login, at, _ = text[match.end() :].rpartition("@")
    return bool(at) and any(sign in login for sign in "@/ \t\n")


def _masked(words: str, conninfo: str) -> str:
    """Return libpq's message, unless it has the password in it."""
    password = conninfo_to_dict(conninfo).get("password") or os.environ.get("PGPASSWORD")
    line = " ".join(words.split())
    return "libpq's words hold the password and are not shown" if password and str(password) in line else line
