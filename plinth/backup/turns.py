"""Backups and restores of one environment take turns, on whichever machines they run: half-restored stores make no set.

The lock is one of its Postgres, and ends with the connection that holds it. Where there is no Postgres there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

from plinth.backup.config import PostgresStore
from plinth.backup.postgres import server_of
from plinth.backup.work import Busy
from plinth.errors import UserError

KEY = int.from_bytes(b"plinth.r", "big")


@contextmanager
def backing_up(store: PostgresStore | None) -> Iterator[None]:
    """Nobody restores into the stores within the block; raises :class:`Busy` where somebody does."""
    with _held(store, "SELECT pg_try_advisory_lock_shared(%s)", "A restore into these stores"):
        yield


@contextmanager
def restoring(store: PostgresStore | None) -> Iterator[None]:
    """Nobody backs the stores up or restores into them within the block; raises :class:`Busy` where somebody does."""
    with _held(store, "SELECT pg_try_advisory_lock(%s)", "A backup of the stores, or another restore into them,"):
        yield


@contextmanager
def _held(store: PostgresStore | None, statement: str, who: str) -> Iterator[None]:
    with ExitStack() as stack:
        connection = None
        # Where it is down a backup is incomplete, and a restore of it refused.
        with suppress(UserError):
            connection = store and stack.enter_context(closing(server_of(store).connect()))
        row = connection.execute(statement.encode(), (KEY,)).fetchone() if connection else (True,)
        if not (row and row[0]):
            raise Busy(f"{who} is at work; wait until it has ended, and run this again.")
        yield
