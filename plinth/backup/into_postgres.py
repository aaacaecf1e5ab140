"""Restoring Postgres: each database made under a new name, compared row for row, then renamed in one transaction."""

from __future__ import annotations

from datetime import UTC, datetime

from plinth.backup import databases
from plinth.backup.config import PostgresStore
from plinth.backup.manifest import DatabasePart, PostgresPart
from plinth.backup.postgres import server_of
from plinth.backup.source import Source, Wish
from plinth.backup.work import BackupError
from plinth.postgres import Server
from plinth.versions import numbers

# Everybody's entrance: it cannot be renamed while somebody asks for that.
ENTRANCE = "postgres"
BEGUN, DONE = "begun", "done"


def wanted(part: PostgresPart, wish: Wish) -> list[DatabasePart]:
    """The databases that a wish asks for; the entrance only where it holds something."""
    named = [saved for saved in part.databases if saved.name in wish.databases]
    return named if wish.databases else [saved for saved in part.databases if saved.name != ENTRANCE or saved.tables]


def refusals(source: Source, part: PostgresPart, store: PostgresStore, wish: Wish) -> list[str]:
    """Why nothing of it may be restored as wished, a sentence each; nothing is touched."""
    server = server_of(store)
    with server.connect() as connection:
        row = connection.execute("SELECT current_setting('server_version')").fetchone()
    version = str(row[0]) if row else ""
    if numbers(version)[:1] < numbers(part.version)[:1]:
        return [
            f"Postgres at {server.host}:{server.port} is {version} and the set was made by {part.version}: an older "
            "server does not read a newer one's dumps; upgrade it first."
        ]
    if wish.replace or wish.beside:
        return []
    made = source.made()
    return [
        f"The database {saved.name} holds rows."
        for saved in wanted(part, wish)
        if f"postgres/{saved.name}" not in made
        and databases.exists(server, saved.name)
        and databases.holds_rows(server, saved.name)
    ]


def restore(source: Source, part: PostgresPart, store: PostgresStore, wish: Wish) -> list[str]:
    """Restore what is wished; a sentence for each database."""
    server = server_of(store)
    roles, _ = source.fetch(part.globals_path)
    made = databases.make_roles(server, roles.read_text())
    said = [f"postgres: made the roles {', '.join(made)}."] if made else []
    return said + [_one(source, server, saved, wish) for saved in wanted(part, wish)]


def _one(source: Source, server: Server, saved: DatabasePart, wish: Wish) -> str:
    name, copy = saved.name, source.beside(saved.name)
    if source.made().get(f"postgres/{name}") == DONE:
        return f"postgres: {name} was restored before."
    _make(source, server, saved, copy)
    if wish.beside or name == ENTRANCE:
        return f"postgres: {name} is restored as {copy}."
    source.making(f"postgres/{name}", BEGUN)
    source.work.say(f"postgres {copy} takes the name {name}")
    aside = f"{name[:40]}__before_{datetime.now(UTC):%Y%m%d%H%M%S}"
    live = databases.exists(server, name)
    kept = live and databases.holds_rows(server, name)
    if live:
        databases.swap(server, copy, name, aside)
    else:
        databases.rename(server, copy, name)
    source.making(f"postgres/{name}", DONE)
    if live and not kept:
        databases.drop(server, aside)
    rows = sum(table.rows for table in saved.tables)
    told = f"; what was live is kept as {aside}, drop it when you are sure" if kept else ""
    return f"postgres: {name} is restored with {rows} rows in {len(saved.tables)} tables{told}."


def _make(source: Source, server: Server, saved: DatabasePart, name: str) -> None:
    if databases.exists(server, name):
        if not databases.compared(server, saved, name):
            source.work.say(f"postgres {name} is there already, as it was saved")
            return
        databases.drop(server, name)
    dump, _ = source.fetch(saved.path)
    databases.rebuild(source.work, server, saved, dump, name)
    wrong = databases.compared(server, saved, name)
    if wrong:
        databases.drop(server, name)
        raise BackupError(f"{wrong[0]} in the restored copy; what was live is as it was.")
