"""A backup must not run during a restore of the same environment, on any machine: its stores may be half restored.

This uses a Postgres advisory lock, released with the connection that holds it; without Postgres there is no lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

from psycopg import Connection

from plinth.backup.config import PostgresStore
from plinth.backup.session import Busy
from plinth.backup.stores.postgres.backup import server_of
from plinth.backup.wait_limits import Patience
from plinth.errors import UserError

KEY = int.from_bytes(b"plinth.r", "big")


@contextmanager
def backing_up(store: PostgresStore | None, turn: Patience) -> Iterator[None]:
    """Keep restores out of the stores within the block. Raises :class:`Busy` where one runs for too long."""
    with _held(store, "SELECT pg_try_advisory_lock_shared(%s)", "A restore into these stores", turn):
        yield


@contextmanager
def restoring(store: PostgresStore | None, turn: Patience) -> Iterator[None]:
    """Keep backups and other restores out of the stores within the block.

    Raises :class:`Busy` where one runs for too long.
    """
    who = "A backup of the stores, or another restore into them,"
    with _held(store, "SELECT pg_try_advisory_lock(%s)", who, turn):
        yield


@contextmanager
def _held(store: PostgresStore | None, statement: str, who: str, turn: Patience) -> Iterator[None]:
    with ExitStack() as stack:
        connection = None
        # With Postgres down a backup is incomplete, and a restore of it is refused.
        with suppress(UserError):
            connection = store and stack.enter_context(closing(server_of(store).connect()))
        if connection and not _is_taken(connection, statement, who, turn):
            raise Busy(f"{who} is at work; wait until it has ended, and run this again.")
        yield


def _is_taken(connection: Connection[Any], statement: str, who: str, turn: Patience) -> bool:
    for _ in turn.moments(lambda: f"{who[0].lower()}{who[1:].rstrip(',')}"):
        row = connection.execute(statement.encode(), (KEY,)).fetchone()
        if row and row[0]:
            return True
    return False
