"""The queue in Redis. A message is the id of a job and nothing else; that it arrives twice or never is provided for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

import redis
from dramatiq import Message, Worker, actor
from dramatiq.brokers.redis import RedisBroker

from plinth.gateway.jobs.outbox import TASK

NAMESPACE = "plinth:gateway:jobs"
QUEUE = "jobs"
SOCKET_S = 5.0
# Messages of a worker that has not been heard of for this long go back to the queue.
HEARTBEAT_MS = 30_000
POLL_MS = 250


class JobQueue:
    """The queue as the dispatcher and workers use it. Its methods block: call them in a thread."""

    def __init__(self, redis_url: str) -> None:
        client = redis.Redis.from_url(redis_url, socket_timeout=SOCKET_S, socket_connect_timeout=SOCKET_S)
        # No middleware: how often a job is tried, and when, is decided in Postgres.
        self._broker = RedisBroker(  # type: ignore[no-untyped-call]
            client=client, middleware=[], namespace=NAMESPACE, heartbeat_timeout=HEARTBEAT_MS, maintenance_chance=10_000
        )
        self._broker.declare_queue(QUEUE)

    def send(self, job_ids: Sequence[UUID]) -> None:
        """Send jobs; raises RedisError where that fails, perhaps after some of them."""
        for job_id in job_ids:
            message: Message[None] = Message(
                queue_name=QUEUE, actor_name=TASK, args=(str(job_id),), kwargs={}, options={}
            )
            self._broker.enqueue(message)

    def is_empty(self) -> bool:
        """Whether no message waits or is being worked on."""
        size: int = self._broker.do_qsize(QUEUE)
        return size == 0

    def worker(self, run: Callable[[UUID], None], concurrency: int) -> Worker:
        """Threads that call ``run`` for each message, once it is started; a message is acknowledged after that."""

        @actor(actor_name=TASK, queue_name=QUEUE, broker=self._broker)
        def run_job(job_id: str) -> None:
            run(UUID(job_id))

        worker = Worker(self._broker, worker_threads=concurrency, worker_timeout=POLL_MS)
        # None waits here behind a long job while another worker is idle.
        worker.queue_prefetch = concurrency
        return worker

    def close(self) -> None:
        """End its connections."""
        self._broker.client.close()
