"""Taking Grafana's database: a copy that SQLite itself makes, whole while Grafana writes."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from plinth.backup.config import GrafanaStore
from plinth.backup.manifest import GrafanaPart
from plinth.backup.work import Work

PATH = "grafana/grafana.db"


def take(work: Work, store: GrafanaStore) -> tuple[GrafanaPart | None, list[str]]:
    """The database, checked, and sentences for what is not in it."""
    work.say("taking grafana")
    to = work.stage / PATH
    to.parent.mkdir()
    try:
        with (
            closing(sqlite3.connect(f"file:{store.database}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(to)) as copy,
        ):
            source.backup(copy)
            found = copy.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.Error as error:
        to.unlink(missing_ok=True)
        return None, [f"Grafana's database {store.database} was not taken: {error}."]
    if found != "ok":
        to.unlink()
        return None, [f"Grafana's database {store.database} is damaged: {found}."]
    return GrafanaPart(path=PATH), []
