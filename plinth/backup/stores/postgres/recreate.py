"""Create a saved database again under a new name, compare it, and swap it in.

The contents of a dump are evaluated with the rights of the database's owner, by a separate login: no superuser connects
to a database once it holds something of its owner.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from plinth.admin.postgres import Server
from plinth.backup.manifest import DatabasePart, Table
from plinth.backup.session import BackupError, Work, tool
from plinth.backup.stores.postgres import extensions
from plinth.backup.stores.postgres.backup import environment, quoted
from plinth.backup.stores.postgres.database_settings import properties
from plinth.backup.stores.postgres.dump_archive import CLIENT, Archive
from plinth.backup.stores.postgres.restored_owner import roles_of, safe_owner, unprivileged
from plinth.backup.stores.postgres.roles import creation, parse
from plinth.backup.stores.postgres.table_checksums import CHECKSUM_KIND, canonical, differences, has_rows, tables
from plinth.backup.stores.postgres.temporary_roles import member, reader

SWAP_TRIES = 20
# The number of pg_restore's messages that are passed on.
_MOST_REFUSALS = 20


def make_roles(server: Server, globals_sql: str) -> list[str]:
    """Create the roles that the server lacks. Returns their names, and a message for what a set may not grant."""
    script = parse(globals_sql)
    with closing(server.connect()) as connection:
        missing = [role for role in script.roles if role not in roles_of(connection)]
        made, left_out = creation(script, missing, _contexts(connection))
        with connection.transaction():
            for statement in made:
                connection.execute(statement)
    return ([f"made the roles {', '.join(missing)}."] if missing else []) + left_out


def exists(server: Server, name: str) -> bool:
    """Whether a database of that name exists."""
    with closing(server.connect()) as connection:
        return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None


def holds_rows(server: Server, name: str) -> bool:
    """Whether any table of a database has a row."""
    with reader(server, name) as login, closing(login.connect(name)) as connection:
        canonical(connection)
        return has_rows(connection)


def contents(server: Server, name: str) -> tuple[Table, ...]:
    """Return the tables of a database as they are now."""
    with reader(server, name) as login, closing(login.connect(name)) as connection:
        canonical(connection)
        return tables(connection)


def drop(server: Server, name: str) -> None:
    """Drop a database that a killed restore left incomplete."""
    with closing(server.connect()) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def extensions_refused(work: Work, server: Server, saved: DatabasePart, names: Sequence[str]) -> str | None:
    """Return a message about extensions that a restore may not create."""
    own = work.config.postgres.extensions if work.config.postgres else ()
    with closing(server.connect()) as connection:
        trusted = extensions.trusted(connection)
    return extensions.refusal(f"The database {saved.name}", names, (*extensions.ALLOWED, *own), trusted)


def rebuild(work: Work, server: Server, saved: DatabasePart, dump: Path, name: str) -> list[str]:
    """Create ``saved`` as a database ``name``, which must not exist yet. Returns a message for each difference."""
    work.say(f"restoring postgres {saved.name} as {name}")
    archive = Archive(work, dump)
    needed = archive.extensions()
    if refusal := extensions_refused(work, server, saved, [extension.name for extension in needed]):
        raise BackupError(refusal)
    with closing(server.connect()) as connection:
        owner, notes = safe_owner(connection, saved)
    try:
        _create(server, saved, name)
        # Only a superuser can have connected before, and nothing of the set is in the database yet.
        with closing(server.connect(name)) as connection:
            schemas = extensions.create(connection, needed, owner, servers=archive.has_servers)
        with closing(server.connect()) as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), sql.Identifier(owner))
            )
        with member(server, name, [owner]) as login:
            _fill(work, login, archive, saved, name, owner, schemas)
            notes += _fill_last(work, login, archive, saved, name, owner)
        notes += _give(server, archive, saved, name, owner)
        with closing(server.connect()) as connection:
            made, left_out = properties(saved, name, _contexts(connection), roles_of(connection))
            for statement in made:
                connection.execute(statement)
    except (BackupError, psycopg.Error) as error:
        drop(server, name)
        if isinstance(error, BackupError):
            raise
        words = " ".join(str(error).split())
        raise BackupError(f"The database {saved.name} cannot be made as {name}: {words}") from error
    for note in (*notes, *left_out):
        work.say(f"postgres {saved.name}: {note}")
    return [*notes, *left_out]


def settled(server: Server, saved: DatabasePart, name: str) -> list[str]:
    """Return how a new database differs from the saved one, and gather its statistics at the same time."""
    with ThreadPoolExecutor(1) as pool:
        analyzing = pool.submit(_analyze, server, saved, name)
        wrong = compared(server, saved, name)
    analyzing.result()
    return wrong


def _analyze(server: Server, saved: DatabasePart, name: str) -> None:
    """Gather the statistics of the planner as the owner, since this evaluates index expressions."""
    with closing(server.connect()) as connection:
        owner, _ = safe_owner(connection, saved)
    with member(server, name, [owner]) as login, closing(login.connect(name)) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner)))
        connection.execute("ANALYZE")


def compared(server: Server, saved: DatabasePart, name: str) -> list[str]:
    """Return how a restored database differs from the saved one."""
    with closing(server.connect()) as connection:
        row = connection.execute("SELECT datallowconn FROM pg_database WHERE datname = %s", (name,)).fetchone()
    if row is None or not row[0]:
        return [f"{saved.name}: nothing was restored into {name}"]
    problems = differences(saved.tables, contents(server, name), saved.checksum_kind)
    return [f"{saved.name}: {problem}" for problem in problems]


def not_compared(saved: DatabasePart) -> str | None:
    """Return a message where a set allows only row counts to be compared."""
    if saved.checksum_kind == CHECKSUM_KIND:
        return None
    return f"the set is of an older version: the rows of {saved.name} are counted, and their values are not compared"


def rename(server: Server, name: str, to: str) -> None:
    """Rename a database that nobody uses yet."""
    with closing(server.connect()) as connection:
        _send_away(connection, name)
        connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(to)))


def swap(server: Server, restored: str, live: str, aside: str) -> None:
    """Give the restored database the live name, and keep the live one as ``aside``, in one transaction.

    Clients of the live database are disconnected, and reconnect to the restored one.
    """
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    for _ in range(SWAP_TRIES):
        with closing(server.connect()) as connection:
            try:
                _send_away(connection, live, restored)
                with connection.transaction():
                    connection.execute(rename.format(sql.Identifier(live), sql.Identifier(aside)))
                    connection.execute(rename.format(sql.Identifier(restored), sql.Identifier(live)))
                return
            except psycopg.errors.ObjectInUse:
                time.sleep(0.1)  # a client reconnected between the two steps
    raise BackupError(
        f"Clients of {live} come back faster than it can be renamed; stop them and restore again. "
        f"The restored data is whole in {restored}."
    )


def _create(server: Server, saved: DatabasePart, name: str) -> None:
    """Create an empty database of the superuser's, which accepts no connections until nobody else may connect."""
    database = sql.Identifier(name)
    create = sql.SQL(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {} ALLOW_CONNECTIONS false"
    ).format(database, sql.Literal(saved.encoding), sql.Literal(saved.collate), sql.Literal(saved.ctype))
    with closing(server.connect()) as connection:
        connection.execute(create)
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(database))


def _fill(
    work: Work, login: Server, archive: Archive, saved: DatabasePart, name: str, owner: str, schemas: Sequence[str]
) -> None:
    """Restore everything that is data or holds data as the owner, in one transaction."""
    with archive.listed(archive.first(schemas)) as file:
        done = work.run(
            [*_pg_restore(name, owner, file), "--exit-on-error", "--single-transaction", archive.path],
            environment(login),
        )
    if done.code != 0:
        raise BackupError(
            f"The database {saved.name} could not be restored as {name}: {done.words}. It was restored with "
            f"the rights of {owner}; what only a superuser may make has to be made by hand (docs/backup.md)."
        )


def _fill_last(work: Work, login: Server, archive: Archive, saved: DatabasePart, name: str, owner: str) -> list[str]:
    """Restore grants, comments, publications and the like. Returns a message for each that an owner cannot create."""
    lines = archive.last()
    if not lines:
        return []
    with archive.listed(lines) as file:
        done = work.run([*_pg_restore(name, owner, file), archive.path], environment(login))
    if done.code == 0:
        return []
    return [f"{line} of {saved.name} is left out." for line in _refusals(done.err)] or [
        f"pg_restore could not make grants and comments of {saved.name}: {done.words}"
    ]


def _refusals(output: str) -> list[str]:
    """Return `error (statement)` for each statement that pg_restore could not run."""
    lines = output.splitlines()
    result = []
    for i, line in enumerate(lines):
        _, marker, error = line.partition("could not execute query: ERROR:")
        if marker:
            command = next((text for text in lines[i + 1 :] if text.startswith("Command was: ")), "")
            result.append(f"{command.removeprefix('Command was: ')[:100]} ({error.strip()})")
    return result[:_MOST_REFUSALS]


def _give(server: Server, archive: Archive, saved: DatabasePart, name: str, owner: str) -> list[str]:
    """Transfer to other roles the objects that were theirs; those of a superuser stay the owner's."""
    notes = []
    for role, statements in archive.owners().items():
        if role in (saved.owner, owner, "pg_database_owner"):
            continue
        with closing(server.connect()) as connection:
            able = unprivileged(connection, role)
        stays = [] if able else statements
        if able:
            # A new login: nothing evaluated before had the rights of this role.
            with member(server, name, [owner, role]) as login, closing(login.connect(name)) as connection:
                for statement in statements:
                    try:
                        connection.execute(statement.encode())
                    except psycopg.Error:
                        stays.append(statement)
        if stays:
            first = stays[0].partition(" ")[2].rpartition(" OWNER TO ")[0].replace(" . ", ".")
            more = f" and {len(stays) - 1} more" if len(stays) > 1 else ""
            notes.append(f"What was {role}'s is {owner}'s now: {first[:100]}{more}.")
    return notes


def _pg_restore(name: str, owner: str, use_list: Path) -> list[str | Path]:
    command = tool("pg_restore", CLIENT)
    return [command, f"--dbname={quoted(name)}", "--no-owner", f"--role={owner}", f"--use-list={use_list}"]


def _contexts(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Return the settings of a server, each with who may set it."""
    return dict(connection.execute("SELECT lower(name), context FROM pg_settings").fetchall())


def _send_away(connection: psycopg.Connection[Any], *names: str) -> None:
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(%s) AND pid <> pg_backend_pid()",
        (list(names),),
    )
