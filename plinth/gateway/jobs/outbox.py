"""The outbox: jobs that are to be sent to the queue, and those that have to be sent again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from plinth.gateway.jobs.database import Connection, Pool, transaction

CHANNEL = "plinth_gateway_outbox"
TASK = "run_job"
SEND_MAX = 100
DELETE_MAX = 1000
# While others wait in the queue before it, a message is sent again after this many times the usual wait, then 2, 4 ...
QUEUED_FACTOR = 12
_SWEEP_LOCK = int.from_bytes(b"plinth.o", "big")
_ENQUEUE = """
INSERT INTO outbox (job_id, task_name, available_at, traceparent)
VALUES (%(job_id)s, %(task)s, now() + %(delay_s)s * interval '1 s', %(traceparent)s)
ON CONFLICT (job_id) DO UPDATE SET sent_at = NULL, sends = 0, available_at = excluded.available_at,
    traceparent = coalesce(excluded.traceparent, outbox.traceparent)
"""
_DUE = """
SELECT id, job_id FROM outbox WHERE sent_at IS NULL AND available_at <= now()
ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
"""
_EXPIRED = """
WITH expired AS (
    UPDATE jobs SET status = 'pending', stage = 'queued', lease_id = NULL, lease_until = NULL, updated_at = now()
    WHERE status = 'processing' AND lease_until < now() RETURNING id
)
UPDATE outbox SET sent_at = NULL, available_at = now() FROM expired WHERE outbox.job_id = expired.id
"""
_LOST = """
UPDATE outbox SET sent_at = NULL FROM jobs
WHERE jobs.id = outbox.job_id AND jobs.status = 'pending'
    AND outbox.sent_at < now() - %s * power(2, least(outbox.sends - 1, 6)) * interval '1 s'
"""
_BACKLOG = """
SELECT count(*) FILTER (WHERE status = 'pending') AS pending,
    count(*) FILTER (WHERE status = 'processing') AS processing,
    count(*) FILTER (WHERE status = 'failed') AS failed,
    coalesce(
        extract(epoch FROM max(now() - available_at) FILTER (WHERE status = 'pending' AND available_at < now())), 0
    )::float AS longest_wait_s
FROM jobs JOIN outbox ON outbox.job_id = jobs.id WHERE status IN ('pending', 'processing', 'failed')
"""
_ENDED = """
WITH ended AS (
    SELECT id FROM jobs WHERE status IN ('completed', 'failed', 'cancelled')
        AND updated_at < now() - %s * interval '1 day' LIMIT %s FOR UPDATE SKIP LOCKED
), sources AS (
    DELETE FROM point_sources USING ended WHERE job_id = ended.id
)
DELETE FROM jobs USING ended WHERE jobs.id = ended.id
"""


async def enqueue(connection: Connection, job_id: UUID, delay_s: float = 0, *, traceparent: str | None = None) -> None:
    """Have a job sent, in the transaction that changes its row; ``traceparent`` is that of who asks for it."""
    values = {"job_id": job_id, "task": TASK, "delay_s": delay_s, "traceparent": traceparent}
    await connection.execute(_ENQUEUE, values)
    await connection.execute("SELECT pg_notify(%s, '')", (CHANNEL,))


@dataclass(frozen=True)
class Backlog:
    """Jobs that have not ended well, of all organisations; one that is to be tried again later does not wait yet."""

    pending: int
    processing: int
    failed: int
    longest_wait_s: float


class Outbox:
    """What the dispatcher does in Postgres. Any number of dispatchers may run."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def send_due(self, send: Callable[[Sequence[UUID]], Awaitable[None]]) -> int:
        """Send what is due and returns how many; what could not be sent stays due.

        One that is killed after it sent and before it noted so has a job sent twice, and the second finds it claimed.
        """
        async with transaction(self._pool) as connection:
            rows = await (await connection.execute(_DUE, (SEND_MAX,))).fetchall()
            if rows:
                await send([job_id for _, job_id in rows])
                await connection.execute(
                    "UPDATE outbox SET sent_at = now(), sends = sends + 1 WHERE id = ANY(%s)",
                    ([identifier for identifier, _ in rows],),
                )
            return len(rows)

    async def resend_lost(self, after_s: float, *, queue_is_empty: bool) -> int:
        """Make jobs due again whose worker or message is gone; returns how many."""
        async with transaction(self._pool) as connection:
            cursor = await connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (_SWEEP_LOCK,))
            if (await cursor.fetchone() or (False,))[0] is not True:
                return 0
            expired = await connection.execute(_EXPIRED)
            lost = await connection.execute(_LOST, (after_s if queue_is_empty else after_s * QUEUED_FACTOR,))
            return expired.rowcount + lost.rowcount

    async def backlog(self) -> Backlog:
        """How many jobs wait, are being done and are dead, and how long one has waited for a worker."""
        async with transaction(self._pool) as connection, connection.cursor(row_factory=class_row(Backlog)) as cursor:
            await cursor.execute(_BACKLOG)
            return await cursor.fetchone() or Backlog(0, 0, 0, 0)

    async def delete_ended(self, retention_days: int) -> int:
        """Delete some jobs that ended long ago; returns how many."""
        async with transaction(self._pool) as connection:
            return (await connection.execute(_ENDED, (retention_days, DELETE_MAX))).rowcount
