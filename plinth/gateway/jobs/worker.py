"""A worker: takes jobs from the queue, embeds their batches and writes the points."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from plinth.gateway.caller import Caller, Scope
from plinth.gateway.embedding import Embedder
from plinth.gateway.errors import ErrorKind, GatewayError
from plinth.gateway.jobs.config import JobsConfig
from plinth.gateway.jobs.database import connection_pool
from plinth.gateway.jobs.leases import Batch, Lease, LeaseLostError, Leases
from plinth.gateway.jobs.model import BatchItem, Kind, StoredJob
from plinth.gateway.jobs.queue import JobQueue
from plinth.gateway.metrics import GatewayMetrics
from plinth.gateway.model import Point
from plinth.gateway.operations import Call, Operations
from plinth.gateway.providers import embedder_for
from plinth.gateway.tracing import Tracing, fail
from plinth.qdrant.search import mock_vector

PROTOCOL = "job"
_TRANSIENT = frozenset(
    {ErrorKind.unavailable, ErrorKind.deadline_exceeded, ErrorKind.resource_exhausted, ErrorKind.internal}
)
log = logging.getLogger("plinth.gateway.jobs.worker")


async def run_worker(
    config: JobsConfig,
    operations: Operations,
    metrics: GatewayMetrics,
    stop: asyncio.Event,
    tracing: Tracing | None = None,
) -> None:
    """Do jobs until ``stop`` is set; then finish the batches that were begun and give the rest back.

    ``operations`` write without the rate limits of callers: their jobs were admitted by those.
    """
    metrics.expect_jobs(Kind)
    # A job holds one connection while it writes, and its lease is renewed over another.
    pool = connection_pool(config.postgres_dsn.get_secret_value(), 2 * config.worker_concurrency + 1)
    await pool.open(wait=False)
    embedder, queue = embedder_for(config.provider), JobQueue(config.redis_url.get_secret_value())
    worker = JobWorker(config, Leases(pool, config.lease_s), operations, embedder, metrics, stop, tracing)
    loop = asyncio.get_running_loop()

    def run(job_id: UUID) -> None:
        asyncio.run_coroutine_threadsafe(worker.run(job_id), loop).result()

    threads = queue.worker(run, config.worker_concurrency)
    threads.start()
    try:
        await stop.wait()
    finally:
        await asyncio.to_thread(threads.stop)
        await embedder.close()
        await pool.close()
        queue.close()


class JobWorker:
    """What is done with one job."""

    def __init__(
        self,
        config: JobsConfig,
        leases: Leases,
        operations: Operations,
        embedder: Embedder,
        metrics: GatewayMetrics,
        stop: asyncio.Event,
        tracing: Tracing | None = None,
    ) -> None:
        self._config = config
        self._leases = leases
        self._operations = operations
        self._embedder = embedder
        self._metrics = metrics
        self._stop = stop
        self._tracing = tracing

    async def run(self, job_id: UUID) -> None:
        """Do a job, where it waits for a worker; how it ends is in its row. It raises nothing."""
        try:
            lease = await self._leases.claim(job_id)
            if lease is not None:
                await self._traced(lease)
        except LeaseLostError:
            log.info("job %s is no longer this worker's", job_id)
        except GatewayError as error:
            # The row says what it said before; once the lease has expired the job is sent again.
            log.warning("job %s: %s", job_id, error.message)
        except Exception:
            log.exception("job %s", job_id)

    async def _traced(self, lease: Lease) -> None:
        """Do it within the trace of the request that asked for it, where jobs are traced."""
        if self._tracing is None:
            await self._run(lease)
            return
        job = lease.job
        attributes: dict[str, str | int] = {"plinth.job_id": str(job.id), "plinth.job_items": job.items}
        with self._tracing.job_span(job.kind, job.traceparent, attributes) as span:
            await self._run(lease)
            if lease.outcome is not None:
                span.set_attribute("plinth.job_outcome", lease.outcome)
                if lease.outcome == "failed":
                    fail(span, lease.outcome)

    async def _run(self, lease: Lease) -> None:
        if lease.attempts > self._config.attempts_max:
            await self._fail(lease, f"its worker ended before it did, {self._config.attempts_max} times")
            return
        work = asyncio.ensure_future(self._work(lease))
        renewal = asyncio.ensure_future(self._renew(lease))
        try:
            await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                # The renewal ends by the lease's loss alone.
                work.cancel()
            with suppress(asyncio.CancelledError):
                await work
        finally:
            renewal.cancel()
            work.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)

    async def _renew(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(self._config.lease_s / 3)
            try:
                await self._leases.renew(lease)
            except GatewayError as error:
                log.warning("the lease of job %s is not renewed: %s", lease.job.id, error.message)
            except LeaseLostError:
                log.info("job %s is no longer this worker's", lease.job.id)
                return

    async def _work(self, lease: Lease) -> None:
        try:
            if not await self._do_batches(lease):
                await self._leases.release(lease)
                return
            await self._leases.complete(lease, await self._result(lease))
            self._account(lease, "completed")
        except LeaseLostError:
            raise
        except GatewayError as error:
            await self._failed(lease, error)
        except Exception:
            log.exception("job %s", lease.job.id)
            await self._failed(lease, GatewayError(ErrorKind.internal, "internal error"))

    async def _failed(self, lease: Lease, error: GatewayError) -> None:
        attempts = lease.attempts
        if error.kind not in _TRANSIENT or attempts >= self._config.attempts_max:
            log.warning("job %s failed: %s", lease.job.id, error.message)
            # What its caller asked for cannot be done; that is no fault of the stack's.
            await self._fail(lease, error.message, "failed" if error.kind in _TRANSIENT else "rejected")
            return
        longest_s = min(self._config.backoff_max_s, self._config.backoff_s * 2 ** (attempts - 1))
        delay_s = max(longest_s * random.uniform(0.5, 1), error.retry_after_s or 0)  # noqa: S311 - not for secrets
        log.info("job %s is tried again in %.1f s: %s", lease.job.id, delay_s, error.message)
        await self._leases.postpone(lease, delay_s)
        self._account(lease, "retried")

    async def _fail(self, lease: Lease, error: str, outcome: str = "failed") -> None:
        await self._leases.fail(lease, error)
        self._account(lease, outcome)

    def _account(self, lease: Lease, outcome: str) -> None:
        lease.outcome = outcome
        self._metrics.job(lease.job.kind, outcome)

    async def _do_batches(self, lease: Lease) -> bool:
        """Do what is left; False where the worker is to stop before that is done."""
        position = 0
        while (batch := await self._leases.next_batch(lease, position)) is not None:
            if self._stop.is_set():
                return False
            vectors = await self._vectors(lease.job, batch.items)
            superseded = await self._write(lease, batch, vectors)
            await self._leases.advance(lease, batch, superseded)
            self._metrics.job_items(lease.job.kind, len(batch.items))
            position = batch.position
        return True

    async def _vectors(self, job: StoredJob, items: Sequence[BatchItem]) -> list[list[float]]:
        if job.kind == Kind.mock:
            asset_id, segment_id = job.parameters["asset_id"], job.parameters["segment_id"]
            return [mock_vector(asset_id, segment_id, self._embedder.dimension) for _ in items]
        model = {"model": self._embedder.model, "model_ver": self._embedder.version}
        if model.items() - job.parameters.items():
            # While the provider changes, workers of both run: vectors of two models never meet in one job.
            raise GatewayError(ErrorKind.unavailable, "no worker has the model of this job")
        return await self._embedder.embed([item.text for item in items], self._config.embed_s)

    async def _write(self, lease: Lease, batch: Batch, vectors: Sequence[list[float]]) -> int:
        """Write the points of a batch; returns how many of them a newer job has."""
        async with self._leases.current(lease, batch.items) as current:
            vector_of = dict(zip((item.point_id for item in batch.items), vectors, strict=True))
            points = [Point(id=item.id, vector=vector_of[item.point_id], payload=item.payload) for item in current]
            if points:
                await self._operations.upsert(self._call(lease.job), lease.job.collection, points)
        return len(batch.items) - len(points)

    def _call(self, job: StoredJob) -> Call:
        caller = Caller(job.org_id, job.user_id, frozenset({Scope.write}))
        return Call(caller, str(job.id), time.monotonic() + self._config.write_s, PROTOCOL)

    async def _result(self, lease: Lease) -> dict[str, Any]:
        job = lease.job
        common = {
            "collection": job.collection,
            "vector_size": self._embedder.dimension,
            "org_id": job.org_id,
            **job.parameters,
            "completed_at": datetime.now(UTC).isoformat(),
        }
        if job.kind == Kind.mock:
            return common
        superseded = await self._leases.superseded(lease)
        return {"points": job.items - superseded, "superseded": superseded, **common}
