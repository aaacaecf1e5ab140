"""The rows of jobs, as callers make, read, cancel and replay them."""

from __future__ import annotations

from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from plinth.gateway.errors import ErrorKind, GatewayError
from plinth.gateway.jobs.database import Connection, Pool, transaction
from plinth.gateway.jobs.model import COLUMNS, JobStatus, NewJob, StoredJob
from plinth.gateway.jobs.outbox import enqueue
from plinth.gateway.tracing import current_traceparent

_INSERT = f"""
INSERT INTO jobs (id, org_id, user_id, kind, collection, qdrant_collection, parameters, status, stage, items)
VALUES (%(id)s, %(org_id)s, %(user_id)s, %(kind)s, %(collection)s, %(qdrant_collection)s, %(parameters)s,
        'pending', 'queued', %(items)s)
ON CONFLICT (id) DO NOTHING
RETURNING {COLUMNS}
"""  # noqa: S608 - the columns are a dataclass's fields
# Whoever has a lease of it finds it gone.
_RESET = f"""
UPDATE jobs SET user_id = %(user_id)s, status = 'pending', stage = 'queued', items_done = 0, items_superseded = 0,
    result = NULL, error = NULL, attempts = 0, lease_id = NULL, lease_until = NULL, updated_at = now()
WHERE id = %(id)s RETURNING {COLUMNS}
"""  # noqa: S608
# In the order of ids, as workers lock them: two that overlap wait for each other and do not deadlock.
_SOURCES = """
INSERT INTO point_sources (qdrant_collection, point_id, job_id)
SELECT %(collection)s, point_id, %(job_id)s FROM unnest(%(point_ids)s::uuid[]) AS point_id ORDER BY point_id
ON CONFLICT (qdrant_collection, point_id) DO UPDATE SET job_id = excluded.job_id
"""
_BATCHES = """
INSERT INTO job_batches (job_id, position, items)
SELECT %s, ordinality, items FROM unnest(%s::bytea[]) WITH ORDINALITY AS batch (items, ordinality)
"""


class JobStore:
    """Jobs of every organisation; each method is about those of one."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(self, job: NewJob, idempotency_key: str | None, *, points_missing: bool = False) -> StoredJob:
        """The job: a new one, one that is there already, or that one from its beginning.

        It begins again where it failed or was cancelled, where another job has taken over a point of it since, and
        where it is completed and ``points_missing``. Raises ALREADY_EXISTS for a key of another job.
        """
        async with transaction(self._pool) as connection:
            stored = await self._inserted(connection, job)
            if stored is None:
                stored = await self._locked(connection, job.org_id, job.id)
                if await self._holds(connection, stored, points_missing):
                    await self._keep_key(connection, job, idempotency_key)
                    return stored
                stored = await self._reset(connection, job)
            await self._keep_key(connection, job, idempotency_key)
            await connection.execute(_BATCHES, (job.id, job.batches))
            await connection.execute(
                _SOURCES,
                {"collection": job.qdrant_collection, "job_id": job.id, "point_ids": job.point_ids},
            )
            await enqueue(connection, job.id, traceparent=current_traceparent())
            return stored

    async def get(self, org_id: str, job_id: UUID) -> StoredJob:
        """A job; raises NOT_FOUND for another organisation's too."""
        job = await self.find(org_id, job_id)
        if job is None:
            raise _not_found()
        return job

    async def find(self, org_id: str, job_id: UUID) -> StoredJob | None:
        """A job, where the organisation has it."""
        async with transaction(self._pool) as connection, connection.cursor(row_factory=class_row(StoredJob)) as cursor:
            await cursor.execute(f"SELECT {COLUMNS} FROM jobs WHERE id = %s AND org_id = %s", (job_id, org_id))  # noqa: S608
            return await cursor.fetchone()

    async def cancel(self, org_id: str, job_id: UUID) -> StoredJob:
        """End a job that has not ended; its worker stops after the batch that it is at. One that ended stays so."""
        async with transaction(self._pool) as connection:
            job = await self._locked(connection, org_id, job_id)
            if JobStatus(job.status).ended:
                return job
            await connection.execute("DELETE FROM job_batches WHERE job_id = %s", (job_id,))
            return await self._changed(
                connection, job_id, "status = 'cancelled', stage = 'cancelled', lease_id = NULL, lease_until = NULL"
            )

    async def dead(self, org_id: str, limit: int) -> list[StoredJob]:
        """Jobs that failed, the last first."""
        async with transaction(self._pool) as connection, connection.cursor(row_factory=class_row(StoredJob)) as cursor:
            await cursor.execute(
                f"SELECT {COLUMNS} FROM jobs WHERE org_id = %s AND status = 'failed' "  # noqa: S608
                "ORDER BY updated_at DESC LIMIT %s",
                (org_id, limit),
            )
            return await cursor.fetchall()

    async def replay(self, org_id: str, job_id: UUID) -> StoredJob:
        """Let a job that failed go on with the batches that are left; raises ALREADY_EXISTS for any other."""
        async with transaction(self._pool) as connection:
            job = await self._locked(connection, org_id, job_id)
            if job.status != JobStatus.failed:
                raise GatewayError(ErrorKind.already_exists, f"the job is {job.status}; one that failed is replayed")
            await enqueue(connection, job_id, traceparent=current_traceparent())
            return await self._changed(
                connection, job_id, "status = 'pending', stage = 'queued', error = NULL, attempts = 0"
            )

    async def _inserted(self, connection: Connection, job: NewJob) -> StoredJob | None:
        values = {
            "id": job.id,
            "org_id": job.org_id,
            "user_id": job.user_id,
            "kind": job.kind.value,
            "collection": job.collection,
            "qdrant_collection": job.qdrant_collection,
            "parameters": Jsonb(job.parameters),
            "items": len(job.point_ids),
        }
        async with connection.cursor(row_factory=class_row(StoredJob)) as cursor:
            await cursor.execute(_INSERT, values)
            return await cursor.fetchone()

    async def _locked(self, connection: Connection, org_id: str, job_id: UUID) -> StoredJob:
        async with connection.cursor(row_factory=class_row(StoredJob)) as cursor:
            await cursor.execute(
                f"SELECT {COLUMNS} FROM jobs WHERE id = %s AND org_id = %s FOR UPDATE",  # noqa: S608
                (job_id, org_id),
            )
            job = await cursor.fetchone()
        if job is None:
            raise _not_found()
        return job

    async def _holds(self, connection: Connection, job: StoredJob, points_missing: bool) -> bool:
        """Whether what the job wrote, or is about to, is what its caller asks for now."""
        status = JobStatus(job.status)
        if status in (JobStatus.failed, JobStatus.cancelled) or (status is JobStatus.completed and points_missing):
            return False
        cursor = await connection.execute("SELECT count(*) FROM point_sources WHERE job_id = %s", (job.id,))
        row = await cursor.fetchone()
        return row is not None and row[0] == job.items

    async def _reset(self, connection: Connection, job: NewJob) -> StoredJob:
        async with connection.cursor(row_factory=class_row(StoredJob)) as cursor:
            await cursor.execute(_RESET, {"id": job.id, "user_id": job.user_id})
            reset = await cursor.fetchone()
        await connection.execute("DELETE FROM job_batches WHERE job_id = %s", (job.id,))
        if reset is None:
            raise _not_found()
        return reset

    async def _changed(self, connection: Connection, job_id: UUID, assignments: str) -> StoredJob:
        async with connection.cursor(row_factory=class_row(StoredJob)) as cursor:
            await cursor.execute(
                f"UPDATE jobs SET {assignments}, updated_at = now() WHERE id = %s RETURNING {COLUMNS}",  # noqa: S608
                (job_id,),
            )
            changed = await cursor.fetchone()
        if changed is None:
            raise _not_found()
        return changed

    async def _keep_key(self, connection: Connection, job: NewJob, key: str | None) -> None:
        if key is None:
            return
        identity = (job.org_id, job.user_id, key)
        await connection.execute(
            "INSERT INTO idempotency_keys (org_id, user_id, key, job_id) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            (*identity, job.id),
        )
        cursor = await connection.execute(
            "SELECT job_id FROM idempotency_keys WHERE org_id = %s AND user_id = %s AND key = %s", identity
        )
        row = await cursor.fetchone()
        if row is None or row[0] != job.id:
            raise GatewayError(ErrorKind.already_exists, "the idempotency key was used with other parameters")


def _not_found() -> GatewayError:
    return GatewayError(ErrorKind.not_found, "job not found")
