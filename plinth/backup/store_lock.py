"""Backups and restores of one environment take turns, on whichever machines they run: half-restored stores make no set.

The lock is one of its Postgres, and ends with the connection that holds it. Where there is no Postgres there is none.
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
    """Nobody restores into the stores within the block; raises :class:`Busy` where somebody does for too long."""
    with _held(store, "SELECT pg_try_advisory_lock_shared(%s)", "A restore into these stores", turn):
        yield


@contextmanager
def restoring(store: PostgresStore | None, turn: Patience) -> Iterator[None]:
    """Nobody backs the stores up or restores into them within the block; raises :class:`Busy` where somebody does."""
    who = "A backup of the stores, or another restore into them,"
    with _held(store, "SELECT pg_try_advisory_lock(%s)", who, turn):
        yield


@contextmanager
def _held(store: PostgresStore | None, statement: str, who: str, turn: Patience) -> Iterator[None]:
    with ExitStack() as stack:
        connection = None
        # Where it is down a backup is incomplete, and a restore of it refused.
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
