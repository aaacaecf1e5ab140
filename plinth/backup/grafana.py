"""Taking Grafana's database: a copy that SQLite itself makes, whole while Grafana writes."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from plinth.backup.config import GrafanaStore
from plinth.backup.manifest import GrafanaPart
from plinth.backup.work import Work

PATH = "grafana/grafana.db"
# Grafana holds the lock for as long as one of its writes takes.
LOCKED_S = 60.0


def take(work: Work, store: GrafanaStore) -> tuple[GrafanaPart | None, list[str]]:
    """The database, checked, and sentences for what is not in it."""
    work.say("taking grafana")
    to = work.stage / PATH
    to.parent.mkdir()
    try:
        copy(store.database, to)
    except sqlite3.Error as error:
        to.unlink(missing_ok=True)
        return None, [
            f"Grafana's database {store.database} was not taken: {error}; see in `plinth status` that Grafana is well, "
            "and run the backup again."
        ]
    return GrafanaPart(path=PATH), []


def copy(database: Path, to: Path, locked_s: float = LOCKED_S) -> None:
    """Copy a database that may be written meanwhile, and check the copy; raises :class:`sqlite3.Error`.

    The original is only read: its directory may be mounted read-only. One that is locked is waited for, ``locked_s``
    seconds.
    """
    end = time.monotonic() + locked_s

    def waited(status: int, _remaining: int, _pages: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > end:
            raise sqlite3.OperationalError(f"it was locked for {locked_s:.0f} s")

    with (
        closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=0)) as source,
        closing(sqlite3.connect(to)) as copied,
    ):
        source.backup(copied, progress=waited)
        found = copied.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"it is damaged ({found})")
