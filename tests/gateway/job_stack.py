"""The processes of jobs over stores of the tests, and a caller who asks for jobs."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psycopg
from psycopg.conninfo import make_conninfo

from plinth.gateway.caller import Caller, Scope
from plinth.gateway.jobs.database import connection_pool
from plinth.gateway.jobs.jobs import Jobs
from plinth.gateway.jobs.schema import migrate
from plinth.gateway.jobs.store import JobStore
from plinth.gateway.operations import Call, Operations
from plinth.gateway.providers.mock import MockEmbedder
from tests.conftest import KEY, Server
from tests.gateway.conftest import Database, RedisServer
from tests.gateway.job_process import main, operations

Result = TypeVar("Result")
END_S = 120
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.gateway.job_process"])


@dataclass
class JobStack:
    """Where jobs are kept and done; its processes are started and killed by name."""

    directory: Path
    qdrant: Server
    redis: RedisServer
    dsn: str
    settings: dict[str, Any]
    processes: dict[str, Any] = field(default_factory=dict)

    def start(self, *names: str) -> None:
        """Start a `dispatcher` or a `worker`; what follows a `-` in its name tells one from another."""
        file = self.directory / "jobs.json"
        jobs = {"postgres_dsn": self.dsn, "redis_url": f"redis://127.0.0.1:{self.redis.port}/1", **self.settings}
        file.write_text(json.dumps({"qdrant_url": self.qdrant.url, "jobs": jobs}))
        for name in names:
            self.processes[name] = FORKS.Process(target=main, args=(name, file), daemon=True)
            self.processes[name].start()

    def stop(self, name: str, with_signal: int = signal.SIGTERM) -> int | None:
        """Its exit status, once it has ended."""
        process = self.processes.pop(name)
        self._signal(process, with_signal)
        process.join(60)
        return process.exitcode

    def _signal(self, process: Any, number: int) -> None:
        assert process.pid is not None
        os.kill(process.pid, number)

    @contextmanager
    def paused(self, name: str = "dispatcher") -> Iterator[None]:
        """Without the dispatcher what is asked for waits."""
        self._signal(self.processes[name], signal.SIGSTOP)
        yield
        self._signal(self.processes[name], signal.SIGCONT)

    def log(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in self.directory.glob("*.log"))

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def points(self, collection: str) -> list[dict[str, Any]]:
        """All points as Qdrant has them."""
        with httpx.Client(base_url=self.qdrant.url, headers={"api-key": KEY}, timeout=60) as client:
            body = {"limit": 100_000, "with_payload": True, "with_vector": True}
            points: list[dict[str, Any]] = client.post(f"/collections/{collection}/points/scroll", json=body).json()[
                "result"
            ]["points"]
            return points

    def do(self, action: Callable[[Jobs, Operations], Awaitable[Result]]) -> Result:
        """Run something with the caller's side of jobs."""

        async def run() -> Result:
            pool = connection_pool(self.dsn, 4)
            await pool.open(wait=False)
            try:
                async with operations(self.qdrant.url, self.directory, "audit.jsonl") as core:
                    return await action(Jobs(core, JobStore(pool), MockEmbedder()), core)
            finally:
                await pool.close()

        return asyncio.run(run())

    def ended(self, organisation: str, job_ids: list[str]) -> dict[str, Any]:
        """The jobs, once all have ended."""
        deadline = time.monotonic() + END_S
        while True:
            rows = self.sql("SELECT id::text, status, stage, error FROM jobs WHERE id = ANY(%s::uuid[])", job_ids)
            pending = [row for row in rows if row[1] in ("pending", "processing")]
            if not pending:
                break
            assert time.monotonic() < deadline, f"{pending}\n{self.log()}"
            time.sleep(0.05)

        async def jobs(jobs: Jobs, _: Operations) -> dict[str, Any]:
            return {job_id: await jobs.get(call(organisation), job_id) for job_id in job_ids}

        return self.do(jobs)


def call(organisation: str, user: str = "user", *scopes: Scope, within_s: float = 30) -> Call:
    """A request of a caller, with every scope where none is named."""
    caller = Caller(organisation, user, frozenset(scopes or Scope))
    return Call(caller, str(uuid.uuid4()), time.monotonic() + within_s, "test")


def migrated(database: Database) -> str:
    """The address of the database, once it has the schema."""
    dsn = make_conninfo(
        host=database.host,
        port=database.port,
        dbname="jobs",
        user=database.user,
        password=database.password,
        connect_timeout=3,
    )
    with psycopg.connect(dsn) as connection:
        migrate(connection)
    return dsn


@contextmanager
def job_stack(
    directory: Path, qdrant: Server, redis: RedisServer, database: Database, **settings: Any
) -> Iterator[JobStack]:
    """A stack without processes; those that a test starts are ended with it."""
    quick = {
        "provider": {"name": "mock"},
        "dispatch_interval_ms": 100,
        "lease_s": 2,
        "resend_after_s": 1,
        "backoff_s": 0.05,
        "backoff_max_s": 0.5,
    }
    directory.mkdir(exist_ok=True)
    (directory / "key").write_text(KEY)
    stack = JobStack(directory, qdrant, redis, migrated(database), quick | settings)
    try:
        yield stack
    finally:
        for name in list(stack.processes):
            stack.stop(name, signal.SIGKILL)
