"""Back up Postgres: roles, a dump of each database, and its settings and checksums, which a dump does not carry.

The superuser reads what all databases share. Each database is read by a login that can read everything in it and is not
a superuser: if pg_dump evaluates an owner's code by accident, the owner gains no rights.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from plinth.admin.postgres import Server
from plinth.backup.config import PostgresStore, secret
from plinth.backup.manifest import DatabasePart, PostgresPart, piece
from plinth.backup.session import BackupError, Work, tool
from plinth.backup.stores.postgres.dump_archive import CLIENT
from plinth.backup.stores.postgres.table_checksums import CHECKSUM_KIND, LOCK_TIMEOUT_MS, canonical, tables
from plinth.backup.stores.postgres.temporary_roles import PREFIX, reader
from plinth.errors import UserError
from plinth.system.versions import numbers

DIRECTORY = "postgres"
GLOBALS = f"{DIRECTORY}/globals.sql"
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
LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE d.datname = %s AND NOT starts_with(coalesce(r.rolname, ''), %s) ORDER BY 1, 2
"""
_EXTENSIONS = "SELECT extname, extversion FROM pg_extension"
# Objects that only a superuser creates, and that belong to no extension.
_NOT_RESTORED = """
SELECT what, count(*) FROM (
  SELECT 'event triggers' AS what, oid, 'pg_event_trigger'::regclass AS of FROM pg_event_trigger
  UNION ALL SELECT 'functions in C', p.oid, 'pg_proc'::regclass FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE l.lanname IN ('c', 'internal') AND p.oid >= 16384
  UNION ALL SELECT 'operator classes', oid, 'pg_opclass'::regclass FROM pg_opclass WHERE oid >= 16384
  UNION ALL SELECT 'foreign data wrappers', oid, 'pg_foreign_data_wrapper'::regclass FROM pg_foreign_data_wrapper
  UNION ALL SELECT 'publications of all tables', oid, 'pg_publication'::regclass FROM pg_publication WHERE puballtables
  UNION ALL SELECT 'subscriptions', s.oid, 'pg_subscription'::regclass FROM pg_subscription s
    JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()
  UNION ALL SELECT 'options of user mappings', oid, 'pg_user_mapping'::regclass FROM pg_user_mapping
    WHERE umoptions IS NOT NULL
) AS o WHERE NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = o.of AND d.objid = o.oid AND d.deptype = 'e')
GROUP BY what ORDER BY what
"""


def server_of(store: PostgresStore) -> Server:
    """Return the server's address and the login of its superuser."""
    return Server(store.host, store.port, store.user, secret(store.password_file) or "")


def environment(server: Server) -> dict[str, str]:
    """Return the login variables for Postgres' own programs: a password must not be in an argument list."""
    return {
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        "PGPASSWORD": server.password,
        "PGCONNECT_TIMEOUT": "10",
    }


def take(work: Work, store: PostgresStore) -> tuple[PostgresPart | None, list[str]]:
    """Back up all that can be read of a server; return its part of the manifest and a message for each failure."""
    server = server_of(store)
    try:
        with closing(server.connect()) as connection:
            version = _version(connection)
            found = connection.execute(_DATABASES).fetchall()
        _refuse_older_client(work, version)
        (work.stage / DIRECTORY).mkdir()
        _take_globals(work, server)
    except UserError as error:
        return None, [str(error)]
    databases: list[DatabasePart] = []
    failures: list[str] = []

    def lack(name: str, error: Exception) -> None:
        (work.stage / _path(name)).unlink(missing_ok=True)
        failures.append(f"The database {name} was not taken: {' '.join(str(error).split())}")

    proofs: list[tuple[DatabasePart, Future[None]]] = []
    # A dump is verified while the next one is written.
    with ThreadPoolExecutor(1) as pool:
        for row in found:
            name, owner, encoding, collate, ctype = map(str, row)
            work.say(f"taking postgres {name}")
            known = {"name": name, "owner": owner, "encoding": encoding, "collate": collate, "ctype": ctype}
            try:
                part = _take_database(work, server, known)
            except (UserError, psycopg.Error) as error:
                lack(name, error)
            else:
                proofs.append((part, pool.submit(_prove, work, part.path)))
    for part, proof in proofs:
        try:
            proof.result()
            databases.append(part)
        except BackupError as error:
            lack(part.name, error)
    return PostgresPart(version=version, globals_path=GLOBALS, databases=tuple(databases)), failures


def verify_dump(work: Work, path: str) -> None:
    """Read a custom-format dump to its end; its table of contents alone would pass a truncated one."""
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
    # The last line of a dump, which a truncated one does not have.
    if done.code != 0 or "cluster dump complete" not in (work.stage / GLOBALS).read_text()[-200:]:
        raise BackupError(f"The roles of Postgres were not taken: {done.words}")


def _take_database(work: Work, server: Server, known: dict[str, str]) -> DatabasePart:
    name = known["name"]
    path = _path(name)
    with closing(server.connect()) as connection:
        shared = {
            "live_bytes": _live_bytes(connection, name),
            "settings": tuple(connection.execute(_SETTINGS, (name,)).fetchall()),
            "grants": tuple(connection.execute(_GRANTS, (name, PREFIX)).fetchall()),
        }
    with reader(server, name) as login, closing(login.connect(name)) as connection:
        canonical(connection)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None  # noqa: S101 - a function answers with one row
        argv: list[str | Path] = [
            tool("pg_dump", CLIENT),
            "--format=custom",
            # restic compresses, and deduplicates unchanged data in plain files alone.
            "--compress=0",
            f"--snapshot={row[0]}",
            f"--lock-wait-timeout={LOCK_TIMEOUT_MS}",
            "--file",
            work.stage / path,
            f"--dbname={quoted(name)}",
        ]
        # The dump and the checksums read the same snapshot at the same time.
        with ThreadPoolExecutor(1) as pool:
            dumping = pool.submit(work.run, argv, environment(login))
            contents = tables(connection)
            done = dumping.result()
        if done.code != 0:
            raise BackupError(f"pg_dump failed: {done.words}")
        part = DatabasePart(
            **known,
            **shared,
            path=path,
            tables=contents,
            checksum_kind=CHECKSUM_KIND,
            extensions={
                str(extension): str(version) for extension, version in connection.execute(_EXTENSIONS).fetchall()
            },
        )
        for what, count in connection.execute(_NOT_RESTORED).fetchall():
            work.say(f"postgres {name}: a restore does not bring back {count} {what}; see docs/backup.md")
        connection.execute("COMMIT")
    return part


def _prove(work: Work, path: str) -> None:
    """Read a dump to its end, and measure it."""
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(piece, work.stage / path, work.stage)
        verify_dump(work, str(work.stage / path))
        work.measured[path] = hashing.result()


def _live_bytes(connection: psycopg.Connection[Any], name: str) -> int:
    row = connection.execute("SELECT pg_database_size(%s)", (name,)).fetchone()
    return int(row[0]) if row else 0


def _path(database: str) -> str:
    return f"{DIRECTORY}/{quote(database, safe='')}.dump"


def quoted(name: str) -> str:
    """Return a connection string for a database of any name: `a=b` would otherwise be read as a setting."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"
