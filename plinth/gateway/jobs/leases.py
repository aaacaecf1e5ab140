"""What a worker does in Postgres: claim a job for a while, do its batches, and end it.

Each change names the lease. Where the job was cancelled, began again or was claimed by another worker, the lease is
gone, and so is whatever its holder still writes here.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from plinth.gateway.jobs.database import Pool, transaction
from plinth.gateway.jobs.model import COLUMNS, BatchItem, ClaimedJob
from plinth.gateway.jobs.outbox import enqueue

_CLAIM = f"""
UPDATE jobs SET status = 'processing', stage = 'embedding', lease_id = %(lease_id)s,
    lease_until = now() + %(lease_s)s * interval '1 s', attempts = attempts + 1, updated_at = now()
FROM outbox
WHERE jobs.id = %(job_id)s AND outbox.job_id = jobs.id AND (
    jobs.status = 'pending' AND outbox.available_at <= now()
    OR jobs.status = 'processing' AND jobs.lease_until < now()
)
RETURNING {COLUMNS}, outbox.traceparent
"""  # noqa: S608 - the columns are a dataclass's fields
_HELD = "id = %(job_id)s AND lease_id = %(lease_id)s AND status = 'processing'"
_RENEW = f"UPDATE jobs SET lease_until = now() + %(lease_s)s * interval '1 s' WHERE {_HELD}"  # noqa: S608
_ADVANCE = f"""
UPDATE jobs SET items_done = items_done + %(items)s, items_superseded = items_superseded + %(superseded)s,
    attempts = 1, updated_at = now(), lease_until = now() + %(lease_s)s * interval '1 s' WHERE {_HELD}
"""  # noqa: S608
_END = f"""
UPDATE jobs SET status = %(status)s, stage = %(status)s, result = %(result)s, error = %(error)s,
    lease_id = NULL, lease_until = NULL, updated_at = now() WHERE {_HELD}
"""  # noqa: S608
_POSTPONE = f"""
UPDATE jobs SET status = 'pending', stage = %(stage)s, attempts = attempts - %(refund)s,
    lease_id = NULL, lease_until = NULL, updated_at = now() WHERE {_HELD}
"""  # noqa: S608
_CURRENT = """
SELECT point_id::text FROM point_sources
WHERE qdrant_collection = %s AND point_id = ANY(%s::uuid[]) AND job_id = %s ORDER BY point_id FOR SHARE
"""


class LeaseLostError(Exception):
    """The job is no longer this worker's."""


@dataclass
class Lease:
    """A job that a worker has claimed, as it was then; ``attempts`` are those since a batch was last done.

    ``outcome`` is what has become of it, once that is known.
    """

    job: ClaimedJob
    id: uuid.UUID
    attempts: int
    outcome: str | None = None

    @property
    def key(self) -> dict[str, Any]:
        """The parameters that name it in SQL."""
        return {"job_id": self.job.id, "lease_id": self.id}


@dataclass(frozen=True)
class Batch:
    """Items that are yet to do."""

    position: int
    items: list[BatchItem]


def encode_batch(items: Sequence[BatchItem]) -> bytes:
    """The bytes that Postgres keeps; raises TypeError for what JSON cannot hold."""
    return orjson.dumps([asdict(item) for item in items])


class Leases:
    """Jobs that workers hold, for ``lease_s`` seconds from when they last said so."""

    def __init__(self, pool: Pool, lease_s: float) -> None:
        self._pool = pool
        self.lease_s = lease_s

    async def claim(self, job_id: uuid.UUID) -> Lease | None:
        """The job, where it waits for a worker now."""
        lease_id = uuid.uuid4()
        values = {"job_id": job_id, "lease_id": lease_id, "lease_s": self.lease_s}
        async with (
            transaction(self._pool) as connection,
            connection.cursor(row_factory=class_row(ClaimedJob)) as cursor,
        ):
            await cursor.execute(_CLAIM, values)
            job = await cursor.fetchone()
        return Lease(job, lease_id, job.attempts) if job else None

    async def renew(self, lease: Lease) -> None:
        """Keep it; raises :class:`LeaseLostError`."""
        await self._update(lease, _RENEW, lease_s=self.lease_s)

    async def next_batch(self, lease: Lease, after: int) -> Batch | None:
        """The first batch behind a position that is not done."""
        async with transaction(self._pool) as connection:
            cursor = await connection.execute(
                "SELECT position, items FROM job_batches WHERE job_id = %s AND position > %s ORDER BY position LIMIT 1",
                (lease.job.id, after),
            )
            row = await cursor.fetchone()
        return Batch(row[0], [BatchItem(**item) for item in orjson.loads(row[1])]) if row else None

    @asynccontextmanager
    async def current(self, lease: Lease, items: Sequence[BatchItem]) -> AsyncIterator[list[BatchItem]]:
        """Those of the items whose content no newer job has; none can get it until these are written."""
        async with transaction(self._pool) as connection:
            # Nothing is changed here: locks alone need no flush to the disk.
            await connection.execute("SET LOCAL synchronous_commit = off")
            identifiers = [item.point_id for item in items]
            cursor = await connection.execute(_CURRENT, (lease.job.qdrant_collection, identifiers, lease.job.id))
            current = {row[0] for row in await cursor.fetchall()}
            yield [item for item in items if item.point_id in current]

    async def advance(self, lease: Lease, batch: Batch, superseded: int) -> None:
        """Note that a batch is done; its texts are gone with it."""
        async with transaction(self._pool) as connection:
            values = {"items": len(batch.items), "superseded": superseded, "lease_s": self.lease_s}
            if (await connection.execute(_ADVANCE, lease.key | values)).rowcount == 0:
                raise LeaseLostError
            await connection.execute(
                "DELETE FROM job_batches WHERE job_id = %s AND position = %s", (lease.job.id, batch.position)
            )
        lease.attempts = 1

    async def superseded(self, lease: Lease) -> int:
        """How many of its items newer jobs have."""
        async with transaction(self._pool) as connection:
            cursor = await connection.execute("SELECT items_superseded FROM jobs WHERE id = %s", (lease.job.id,))
            row = await cursor.fetchone()
        return row[0] if row else 0

    async def complete(self, lease: Lease, result: dict[str, Any]) -> None:
        """End it well."""
        await self._update(lease, _END, status="completed", result=Jsonb(result), error=None)

    async def fail(self, lease: Lease, error: str) -> None:
        """End it; what is left of it can be replayed."""
        await self._update(lease, _END, status="failed", result=None, error=error)

    async def postpone(self, lease: Lease, delay_s: float) -> None:
        """Have it tried again after a while."""
        await self._give_back(lease, delay_s, stage="retrying", refund=0)

    async def release(self, lease: Lease) -> None:
        """Give it to another worker at once: this one stops."""
        await self._give_back(lease, 0, stage="queued", refund=1)

    async def _give_back(self, lease: Lease, delay_s: float, *, stage: str, refund: int) -> None:
        async with transaction(self._pool) as connection:
            if (await connection.execute(_POSTPONE, lease.key | {"stage": stage, "refund": refund})).rowcount == 0:
                raise LeaseLostError
            await enqueue(connection, lease.job.id, delay_s)

    async def _update(self, lease: Lease, sql: str, **values: Any) -> None:
        async with transaction(self._pool) as connection:
            if (await connection.execute(sql, lease.key | values)).rowcount == 0:
                raise LeaseLostError
