"""Connections to the database of jobs, and what is said where there is none."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from plinth.gateway.errors import ErrorKind, GatewayError

Pool = AsyncConnectionPool[psycopg.AsyncConnection[Any]]
Connection = psycopg.AsyncConnection[Any]
CONNECT_S = 5.0
_NOT_MIGRATED = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)
log = logging.getLogger("plinth.gateway.jobs")


def connection_pool(dsn: str, size: int) -> Pool:
    """A pool, not open yet. A connection is tried before it is handed out: the server may have been restarted."""
    return AsyncConnectionPool(
        dsn,
        min_size=1,
        max_size=size,
        open=False,
        timeout=CONNECT_S,
        check=AsyncConnectionPool.check_connection,
    )


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction; raises UNAVAILABLE where the database is away, is not migrated yet, or gives up a deadlock."""
    try:
        async with pool.connection() as connection:
            yield connection
    except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, *_NOT_MIGRATED) as error:
        log.warning("postgres: %s", type(error).__name__)
        raise GatewayError(ErrorKind.unavailable, "the store of jobs is unavailable", retry_after_s=1) from None
