"""Taking Postgres: roles and a dump of each database, with what a dump does not carry and what proves it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import psycopg

from plinth.backup.config import PostgresStore, secret
from plinth.backup.manifest import DatabasePart, PostgresPart
from plinth.backup.tables import canonical, tables
from plinth.backup.work import BackupError, Work, tool
from plinth.errors import UserError
from plinth.postgres import Server
from plinth.versions import numbers

DIRECTORY = "postgres"
GLOBALS = f"{DIRECTORY}/globals.sql"
CLIENT = "postgresql-client"
_DATABASES = """
SELECT d.datname, pg_get_userbyid(d.datdba)::text, pg_encoding_to_char(d.encoding)::text, d.datcollate, d.datctype
FROM pg_database d WHERE NOT d.datistemplate AND d.datallowconn ORDER BY 1
"""
_SETTINGS = """
SELECT r.rolname, unnest(s.setconfig) FROM pg_db_role_setting s
JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE d.datname = %s ORDER BY 1, 2
"""
_GRANTS = """
SELECT coalesce(r.rolname, 'PUBLIC'), a.privilege_type FROM pg_database d, aclexplode(d.datacl) a
LEFT JOIN pg_roles r ON r.oid = a.grantee WHERE d.datname = %s ORDER BY 1, 2
"""


def server_of(store: PostgresStore) -> Server:
    """Where it is, and its superuser's login."""
    return Server(store.host, store.port, store.user, secret(store.password_file) or "")


def environment(server: Server) -> dict[str, str]:
    """What Postgres' own programs log in with; a password is nothing for an argument list."""
    return {
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        "PGPASSWORD": server.password,
        "PGCONNECT_TIMEOUT": "10",
    }


def take(work: Work, store: PostgresStore) -> tuple[PostgresPart | None, list[str]]:
    """Everything of a server that can be had, and sentences for what is not in it."""
    server = server_of(store)
    try:
        with server.connect() as connection:
            version = _version(connection)
            found = connection.execute(_DATABASES).fetchall()
        _refuse_older_client(work, version)
        (work.stage / DIRECTORY).mkdir()
        _take_globals(work, server)
    except UserError as error:
        return None, [str(error)]
    databases, failures = [], []
    for row in found:
        name, owner, encoding, collate, ctype = map(str, row)
        work.say(f"taking postgres {name}")
        known = {"name": name, "owner": owner, "encoding": encoding, "collate": collate, "ctype": ctype}
        try:
            databases.append(_take_database(work, server, known))
        except (UserError, psycopg.Error) as error:
            (work.stage / _path(name)).unlink(missing_ok=True)
            failures.append(f"The database {name} was not taken: {' '.join(str(error).split())}")
    return PostgresPart(version=version, globals_path=GLOBALS, databases=tuple(databases)), failures


def verify_dump(work: Work, path: str) -> None:
    """Read a custom-format dump to its end; the list alone would pass a truncated one."""
    done = work.run([tool("pg_restore", CLIENT), "--file=/dev/null", path])
    if done.code != 0:
        raise BackupError(f"the dump cannot be read to its end: {done.words}")


def _version(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT current_setting('server_version')").fetchone()
    return str(row[0]) if row else ""


def _refuse_older_client(work: Work, version: str) -> None:
    said = work.run([tool("pg_dump", CLIENT), "--version"]).out.strip()
    if numbers(said)[:1] < numbers(version)[:1]:
        major = numbers(version)[0]
        raise BackupError(
            f"{said} cannot dump a server of version {version}; install the client of {major} or newer: "
            f"apt-get install postgresql-client-{major}."
        )


def _take_globals(work: Work, server: Server) -> None:
    work.say("taking postgres roles")
    done = work.run([tool("pg_dumpall", CLIENT), "--globals-only", "--file", work.stage / GLOBALS], environment(server))
    # Its last line, which a dump that was cut off does not have.
    if done.code != 0 or "cluster dump complete" not in (work.stage / GLOBALS).read_text()[-200:]:
        raise BackupError(f"The roles of Postgres were not taken: {done.words}")


def _take_database(work: Work, server: Server, known: dict[str, str]) -> DatabasePart:
    name = known["name"]
    path = _path(name)
    with _connected(server, name) as connection:
        canonical(connection)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None  # noqa: S101 - a function answers with one row
        done = work.run(
            [
                tool("pg_dump", CLIENT),
                "--format=custom",
                # Restic compresses, and finds again what did not change, in plain data alone.
                "--compress=0",
                f"--snapshot={row[0]}",
                "--file",
                work.stage / path,
                f"--dbname={quoted(name)}",
            ],
            environment(server),
        )
        if done.code != 0:
            raise BackupError(f"pg_dump failed: {done.words}")
        part = DatabasePart(
            **known,
            path=path,
            live_bytes=_live_bytes(connection),
            tables=tables(connection),
            extensions=dict(connection.execute("SELECT extname, extversion FROM pg_extension").fetchall()),
            settings=tuple(connection.execute(_SETTINGS, (name,)).fetchall()),
            grants=tuple(connection.execute(_GRANTS, (name,)).fetchall()),
        )
        connection.execute("COMMIT")
    verify_dump(work, str(work.stage / path))
    return part


def _live_bytes(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(row[0]) if row else 0


def _connected(server: Server, database: str) -> psycopg.Connection[Any]:
    return server.connect(database)


def _path(database: str) -> str:
    return f"{DIRECTORY}/{quote(database, safe='')}.dump"


def quoted(name: str) -> str:
    """A connection string for a database, whatever its name: `a=b` would otherwise be read as a setting."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"
