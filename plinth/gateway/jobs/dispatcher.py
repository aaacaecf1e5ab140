"""The dispatcher: sends the jobs of the outbox to the queue as they come, and those again that got lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from uuid import UUID

import psycopg
from redis.exceptions import RedisError

from plinth.gateway.errors import GatewayError
from plinth.gateway.jobs.config import JobsConfig
from plinth.gateway.jobs.database import connection_pool
from plinth.gateway.jobs.outbox import CHANNEL, SEND_MAX, Outbox
from plinth.gateway.jobs.queue import JobQueue
from plinth.gateway.metrics import GatewayMetrics

# A dispatcher that is told to stop looks up this often.
STOP_S = 0.25
CLEANUP_S = 600.0
COUNT_S = 10.0
log = logging.getLogger("plinth.gateway.jobs.dispatcher")


async def run_dispatcher(config: JobsConfig, metrics: GatewayMetrics, stop: asyncio.Event) -> None:
    """Dispatch until ``stop`` is set, and show what waits in ``metrics``.

    Postgres and Redis may be away at any time, at the start too.
    """
    pool, queue = (
        connection_pool(config.postgres_dsn.get_secret_value(), 2),
        JobQueue(config.redis_url.get_secret_value()),
    )
    await pool.open(wait=False)
    dispatcher = Dispatcher(config, Outbox(pool), queue, metrics)
    try:
        await dispatcher.run(stop)
    finally:
        await pool.close()
        queue.close()


class Dispatcher:
    """One loop: send what is due, now and then see to what is lost, wait for a notification or the interval."""

    def __init__(self, config: JobsConfig, outbox: Outbox, queue: JobQueue, metrics: GatewayMetrics) -> None:
        self._config = config
        self._outbox = outbox
        self._queue = queue
        self._metrics = metrics
        self._interval_s = config.dispatch_interval_ms / 1000
        self._resend_at = self._cleanup_at = self._count_at = time.monotonic()
        self._is_failing = False

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until ``stop`` is set."""
        listener: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        log.info("outbox_dispatcher_started")
        while not stop.is_set():
            try:
                if listener is None or listener.closed:
                    listener = await self._listen()
                await self._turn()
                self._is_failing = False
                await self._wait(listener, stop)
            except (GatewayError, RedisError, psycopg.Error, OSError) as error:
                if not self._is_failing:
                    log.warning("jobs wait: %s", type(error).__name__ if isinstance(error, psycopg.Error) else error)
                self._is_failing = True
                self._metrics.backlog(None)
                await self._pause(stop)
        if listener is not None:
            await listener.close()

    async def _turn(self) -> None:
        while await self._outbox.send_due(self._send) == SEND_MAX:
            pass
        now = time.monotonic()
        if now >= self._resend_at:
            self._resend_at = now + min(self._config.resend_after_s, self._config.lease_s) / 2
            is_empty = await asyncio.to_thread(self._queue.is_empty)
            lost = await self._outbox.resend_lost(self._config.resend_after_s, queue_is_empty=is_empty)
            if lost:
                log.warning("%s jobs are sent again: their worker or their message is gone", lost)
                await self._outbox.send_due(self._send)
        if now >= self._cleanup_at:
            deleted = await self._outbox.delete_ended(self._config.retention_days)
            # The next lot at once, where there may be one.
            self._cleanup_at = now if deleted else now + CLEANUP_S
        if now >= self._count_at:
            self._count_at = now + COUNT_S
            await self._count()

    async def _count(self) -> None:
        backlog = await self._outbox.backlog()
        jobs = {"pending": backlog.pending, "processing": backlog.processing, "failed": backlog.failed}
        self._metrics.backlog(jobs, backlog.longest_wait_s)

    async def _send(self, job_ids: Sequence[UUID]) -> None:
        await asyncio.to_thread(self._queue.send, job_ids)

    async def _listen(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        dsn = self._config.postgres_dsn.get_secret_value()
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        await connection.execute(f"LISTEN {CHANNEL}")
        return connection

    async def _wait(self, listener: psycopg.AsyncConnection[tuple[object, ...]], stop: asyncio.Event) -> None:
        """Until a job comes or the interval has passed."""
        deadline = time.monotonic() + self._interval_s
        while (remaining_s := deadline - time.monotonic()) > 0 and not stop.is_set():
            async for _ in listener.notifies(timeout=min(remaining_s, STOP_S), stop_after=1):
                return

    async def _pause(self, stop: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._interval_s):
                await stop.wait()
        except TimeoutError:
            return
