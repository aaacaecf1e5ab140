"""Making a saved database anew under a name that nobody uses, comparing it, and swapping it in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from plinth.backup.manifest import DatabasePart, Table
from plinth.backup.postgres import CLIENT, environment, quoted
from plinth.backup.roles import roles, statements
from plinth.backup.tables import canonical, differences, tables
from plinth.backup.work import BackupError, Work, tool
from plinth.postgres import Server

# Their values are lists of names, quoted already.
_LISTS = ("search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries")
SWAP_TRIES = 20


def make_roles(server: Server, globals_sql: str) -> list[str]:
    """Make the roles that the server lacks; those that were made."""
    with server.connect() as connection:
        there = {str(row[0]) for row in connection.execute("SELECT rolname FROM pg_roles").fetchall()}
        missing = [role for role in roles(globals_sql) if role not in there]
        with connection.transaction():
            for statement in statements(globals_sql, missing):
                connection.execute(statement.encode())
    return missing


def exists(server: Server, name: str) -> bool:
    """Whether there is a database of that name."""
    with server.connect() as connection:
        return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None


def holds_rows(server: Server, name: str) -> bool:
    """Whether any table of a database has a row."""
    return any(table.rows for table in contents(server, name))


def contents(server: Server, name: str) -> tuple[Table, ...]:
    """The tables of a database as they are now."""
    with server.connect(name) as connection:
        canonical(connection)
        return tables(connection)


def drop(server: Server, name: str) -> None:
    """Remove a database of ours that a killed restore left half made."""
    with server.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def rebuild(work: Work, server: Server, saved: DatabasePart, dump: Path, name: str) -> None:
    """Make ``saved`` as a database ``name``, which does not exist yet."""
    work.say(f"restoring postgres {saved.name} as {name}")
    made = sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER {} ENCODING {} LC_COLLATE {} LC_CTYPE {}").format(
        sql.Identifier(name),
        sql.Identifier(saved.owner),
        sql.Literal(saved.encoding),
        sql.Literal(saved.collate),
        sql.Literal(saved.ctype),
    )
    try:
        with server.connect() as connection:
            connection.execute(made)
    except psycopg.Error as error:
        raise BackupError(f"The database {name} cannot be made: {' '.join(str(error).split())}") from error
    done = work.run(
        [tool("pg_restore", CLIENT), "--exit-on-error", "--single-transaction", f"--dbname={quoted(name)}", dump],
        environment(server),
    )
    if done.code != 0:
        drop(server, name)
        raise BackupError(f"The database {saved.name} could not be restored as {name}: {done.words}")
    with server.connect(name) as connection:
        connection.execute("ANALYZE")
    with server.connect() as connection:
        for statement in properties(saved, name):
            connection.execute(statement)


def properties(saved: DatabasePart, name: str) -> list[sql.Composed]:
    """What a dump does not carry: the settings of a database, and who may enter it."""
    made: list[sql.Composed] = []
    database = sql.Identifier(name)
    for role, setting in saved.settings:
        key, _, value = setting.partition("=")
        whom = (
            sql.SQL("DATABASE {}").format(database)
            if role is None
            else sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), database)
        )
        shown: sql.Composable = sql.SQL(value) if key in _LISTS else sql.Literal(value)
        made.append(sql.SQL("ALTER {} SET {} = {}").format(whom, sql.Identifier(*key.split(".")), shown))
    if saved.grants:
        made.append(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    for grantee, privilege in saved.grants:
        to = sql.SQL("PUBLIC") if grantee == "PUBLIC" else sql.Identifier(grantee)
        made.append(sql.SQL("GRANT {} ON DATABASE {} TO {}").format(sql.SQL(privilege), database, to))
    return made


def compared(server: Server, saved: DatabasePart, name: str) -> list[str]:
    """What a restored database has otherwise than it was saved."""
    return [f"{saved.name}: {words}" for words in differences(saved.tables, contents(server, name))]


def rename(server: Server, name: str, to: str) -> None:
    """Give a database another name; nobody has it yet."""
    with server.connect() as connection:
        _send_away(connection, name)
        connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(to)))


def swap(server: Server, restored: str, live: str, aside: str) -> None:
    """Give the restored database the live one's name, which is kept as ``aside``: both or neither.

    Clients of the live one are sent away, and come back to the restored one.
    """
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    for _ in range(SWAP_TRIES):
        with server.connect() as connection:
            try:
                _send_away(connection, live, restored)
                with connection.transaction():
                    connection.execute(rename.format(sql.Identifier(live), sql.Identifier(aside)))
                    connection.execute(rename.format(sql.Identifier(restored), sql.Identifier(live)))
                return
            except psycopg.errors.ObjectInUse:
                time.sleep(0.1)  # a client came back between the two steps
    raise BackupError(
        f"Clients of {live} come back faster than it can be renamed; stop them and restore again. "
        f"The restored data is whole in {restored}."
    )


def _send_away(connection: psycopg.Connection[Any], *names: str) -> None:
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(%s) AND pid <> pg_backend_pid()",
        (list(names),),
    )
