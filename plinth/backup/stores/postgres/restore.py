"""Restore Postgres: each database is created under a new name, compared row by row, then renamed in one transaction."""

from __future__ import annotations

from datetime import UTC, datetime

from plinth.admin.postgres import Server
from plinth.backup.config import PostgresStore
from plinth.backup.manifest import DatabasePart, PostgresPart
from plinth.backup.restore_source import BEGUN, DONE, LONGEST, Source, Wish, shortened
from plinth.backup.session import BackupError
from plinth.backup.stores.postgres import recreate as postgres_recreate
from plinth.backup.stores.postgres.backup import server_of
from plinth.system.versions import numbers

# The default database for connections: it cannot be renamed while someone connects to it.
ENTRANCE = "postgres"


def wanted(part: PostgresPart, wish: Wish) -> list[DatabasePart]:
    """Return the databases that a request includes; the default database only where it holds something."""
    named = [saved for saved in part.databases if saved.name in wish.databases]
    return named if wish.databases else [saved for saved in part.databases if saved.name != ENTRANCE or saved.tables]


def refusals(source: Source, part: PostgresPart, store: PostgresStore, wish: Wish) -> list[str]:
    """Return why the databases may not be restored as requested, a message for each reason; nothing is changed."""
    server = server_of(store)
    with server.connect() as connection:
        row = connection.execute("SELECT current_setting('server_version')").fetchone()
    version = str(row[0]) if row else ""
    if numbers(version)[:1] < numbers(part.version)[:1]:
        return [
            f"Postgres at {server.host}:{server.port} is {version} and the set was made by {part.version}: an older "
            "server does not read a newer one's dumps; upgrade it first."
        ]
    chosen = wanted(part, wish)
    refused = [
        postgres_recreate.extensions_refused(source.work, server, saved, list(saved.extensions)) for saved in chosen
    ]
    if any(refused):
        return [refusal for refusal in refused if refusal]
    made = source.made()
    copies = {source.beside(saved.name): saved for saved in wanted(part, wish)}
    said = [
        _in_the_way(copy)
        for copy, saved in copies.items()
        if f"postgres/{copy}" not in made
        and postgres_recreate.exists(server, copy)
        and postgres_recreate.compared(server, saved, copy)
    ]
    if wish.replace or wish.beside:
        return said
    return said + [
        f"The database {saved.name} holds rows."
        for saved in wanted(part, wish)
        if f"postgres/{saved.name}" not in made
        and postgres_recreate.exists(server, saved.name)
        and postgres_recreate.holds_rows(server, saved.name)
    ]


def restore(source: Source, part: PostgresPart, store: PostgresStore, wish: Wish) -> list[str]:
    """Restore the requested databases, and return a message for each."""
    server = server_of(store)
    chosen = wanted(part, wish)
    roles, _ = source.fetch(part.globals_path)
    said = [f"postgres: {note}" for note in postgres_recreate.make_roles(server, roles.read_text())]
    for saved in chosen:
        said += _one(source, server, saved, wish)
    return said


def _one(source: Source, server: Server, saved: DatabasePart, wish: Wish) -> list[str]:
    name, copy = saved.name, source.beside(saved.name)
    if source.made().get(f"postgres/{name}") == DONE:
        return [f"postgres: {name} was restored before."]
    beside = wish.beside or name == ENTRANCE
    if beside and source.made().get(f"postgres/{copy}") == DONE and postgres_recreate.exists(server, copy):
        return [f"postgres: {name} was restored before, as {copy}."]
    notes = _make(source, server, saved, copy)
    if beside:
        source.making(f"postgres/{copy}", DONE)
        return [f"postgres: {name} is restored as {copy}.", *notes]
    source.making(f"postgres/{name}", BEGUN)
    source.work.say(f"postgres {copy} takes the name {name}")
    mark = f"__before_{datetime.now(UTC):%Y%m%d%H%M%S}"
    aside = f"{shortened(name, LONGEST - len(mark))}{mark}"
    live = postgres_recreate.exists(server, name)
    kept = live and postgres_recreate.holds_rows(server, name)
    if live:
        postgres_recreate.swap(server, copy, name, aside)
    else:
        postgres_recreate.rename(server, copy, name)
    source.making(f"postgres/{name}", DONE)
    if live and not kept:
        postgres_recreate.drop(server, aside)
    rows = sum(table.rows for table in saved.tables)
    told = f"; what was live is kept as {aside}, drop it when you are sure" if kept else ""
    return [f"postgres: {name} is restored with {rows} rows in {len(saved.tables)} tables{told}.", *notes]


def _make(source: Source, server: Server, saved: DatabasePart, name: str) -> list[str]:
    notes = [f"postgres: {note}." for note in (postgres_recreate.not_compared(saved),) if note]
    if postgres_recreate.exists(server, name):
        if not postgres_recreate.compared(server, saved, name):
            source.work.say(f"postgres {name} is there already, as it was saved")
            return notes
        if source.made().get(f"postgres/{name}") != BEGUN:
            raise BackupError(_in_the_way(name))
        postgres_recreate.drop(server, name)
    source.making(f"postgres/{name}", BEGUN)
    dump, _ = source.fetch(saved.path)
    notes += [f"postgres: {note}" for note in postgres_recreate.rebuild(source.work, server, saved, dump, name)]
    wrong = postgres_recreate.settled(server, saved, name)
    if wrong:
        postgres_recreate.drop(server, name)
        raise BackupError(f"{wrong[0]} in the restored copy; what was live is as it was.")
    return notes


def _in_the_way(copy: str) -> str:
    return f"The database {copy} is there, and not as the set has it; drop or rename it, or choose another set."
