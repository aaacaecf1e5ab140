"""Back up Grafana's database with SQLite's own copy, which is consistent while Grafana writes."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import httpx

from plinth.backup.config import GrafanaStore, LentGrafana, secret
from plinth.backup.manifest import GrafanaPart
from plinth.backup.session import BackupError, Work
from plinth.backup.set_paths import GRAFANA as PATH
from plinth.backup.temporary.launcher import current
from plinth.grafana_snapshot import sqlite_copy
from plinth.grafana_snapshot.server import MOST_BYTES
from plinth.system.http_client import client_for

# Timeouts between two reads from the snapshot server, which makes the copy before the first, and for all of it.
SILENT_S, LENT_S = 300.0, 900.0


class NotLent(Exception):
    """The snapshot server did not answer, or sent something that is not a database."""


def take(work: Work, store: GrafanaStore | LentGrafana) -> tuple[GrafanaPart | None, list[str]]:
    """Back up the database and check it; return its part of the manifest and a message for each failure."""
    work.say("taking grafana")
    to = work.stage / PATH
    to.parent.mkdir()
    try:
        if isinstance(store, LentGrafana):
            borrow(store, to)
        else:
            with to.open("xb") as file:
                current().copy_database(store.database, file)
            sqlite_copy.check(to)
    except (sqlite3.Error, httpx.HTTPError, NotLent, BackupError) as error:
        to.unlink(missing_ok=True)
        return None, [_said(store, error)]
    return GrafanaPart(path=PATH), []


def _said(store: GrafanaStore | LentGrafana, error: Exception) -> str:
    if isinstance(store, LentGrafana):
        return (
            f"Grafana's database was not taken from {store.url}: {error}; see that the container `copy` of Grafana's "
            "pod runs and what it logs, and run the backup again."
        )
    return (
        f"Grafana's database {store.database} was not taken: {error}; see in `plinth status` that Grafana is well, and "
        "run the backup again."
    )


def borrow(store: LentGrafana, to: Path, within_s: float = LENT_S) -> None:
    """Download the copy that :mod:`plinth.grafana_snapshot.server` makes, and check it.

    The download is bounded in size and in time. Raises :class:`NotLent`, httpx.HTTPError or :class:`sqlite3.Error`.
    """
    end, size = time.monotonic() + within_s, 0
    wanted = {"Authorization": f"Bearer {secret(store.password_file)}"}
    patience = httpx.Timeout(10, read=min(SILENT_S, within_s))
    with (
        client_for(store.url, timeout=patience) as client,
        client.stream("GET", store.url, headers=wanted) as answer,
        to.open("wb") as file,
    ):
        # Chunks as they arrive: collected ones would let a slow trickle pass forever.
        pieces = answer.iter_raw()
        if answer.status_code != httpx.codes.OK:
            words = next(pieces, b"")[:200].decode(errors="replace").strip()
            raise NotLent(f"it answers {answer.status_code} ({words})")
        for piece in pieces:
            size += len(piece)
            if size > MOST_BYTES:
                raise NotLent(f"it gives more than {MOST_BYTES} bytes")
            if time.monotonic() > end:
                raise NotLent(f"it takes longer than {within_s:.0f} s")
            file.write(piece)
    sqlite_copy.check(to)
