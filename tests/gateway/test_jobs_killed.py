"""Jobs while everything that they need is killed: none is lost, none stays, and no point is there twice.

PLINTH_TESTS_KILLED_JOBS and PLINTH_TESTS_KILLS make a longer run of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest

from plinth.gateway.errors import ErrorKind, GatewayError
from plinth.gateway.jobs.jobs import Jobs
from plinth.gateway.jobs.model import EmbedItem, Job
from plinth.gateway.operations import Operations
from plinth.gateway.tenancy import collection_name
from plinth.qdrant.search import mock_vector, point_id_for
from tests.conftest import Server
from tests.gateway.conftest import Database, RedisServer
from tests.gateway.job_stack import JobStack, call, job_stack
from tests.gateway.test_jobs import SIZE, collection
from tests.waiting import wait_for

JOBS = int(os.environ.get("PLINTH_TESTS_KILLED_JOBS", "24"))
KILLS = int(os.environ.get("PLINTH_TESTS_KILLS", "7"))
ITEMS = 120


@pytest.fixture
def stack(qdrant: Server, database: Database, tmp_path: Path) -> Iterator[JobStack]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on PATH")
    redis = RedisServer(tmp_path)
    redis.start()
    with job_stack(tmp_path / "jobs", qdrant, redis, database) as running:
        running.start("dispatcher", "worker-1", "worker-2")
        yield running
    redis.stop()


def crash_postgres(stack: JobStack) -> None:
    """One of its processes killed: it ends all others and recovers from its log, as after a crash of its own."""
    with suppress(psycopg.OperationalError), psycopg.connect(stack.dsn) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        connection.execute("SELECT 1")
    wait_for(lambda: answers(stack), "Postgres did not come back")


def answers(stack: JobStack) -> bool:
    try:
        return bool(stack.sql("SELECT 1"))
    except psycopg.OperationalError:
        return False


def wipe_redis(stack: JobStack) -> None:
    """Killed, and its log lost with it."""
    stack.redis.stop(signal.SIGKILL)
    shutil.rmtree(stack.redis.directory / "appendonlydir", ignore_errors=True)
    stack.redis.start()


def kill_redis(stack: JobStack) -> None:
    stack.redis.stop(signal.SIGKILL)
    stack.redis.start()


def kill_qdrant(stack: JobStack) -> None:
    stack.qdrant.stop(signal.SIGKILL)
    stack.qdrant.start()


def kill(name: str) -> Callable[[JobStack], None]:
    def kill_process(stack: JobStack) -> None:
        stack.stop(name, signal.SIGKILL)
        stack.start(name)

    return kill_process


FAULTS = (
    kill("worker-1"),
    kill("worker-2"),
    kill("dispatcher"),
    kill_redis,
    wipe_redis,
    crash_postgres,
    kill_qdrant,
)


async def insisting(request: Callable[[], Awaitable[Job]]) -> Job:
    """As a client does: the same request again until it is answered."""
    while True:
        try:
            return await request()
        except GatewayError as error:
            if error.kind not in (ErrorKind.unavailable, ErrorKind.deadline_exceeded):
                raise
            await asyncio.sleep(0.1)


def create_all(stack: JobStack, organisation: str, name: str) -> list[Job]:
    """Jobs of both kinds, asked for over a few seconds."""

    async def create(jobs: Jobs, _: Operations) -> list[Job]:
        created = []
        for number in range(JOBS):
            if number % 3 == 0:
                request = partial(jobs.create_mock, asset_id=f"asset-{number}", segment="chunk")
            else:
                items = [EmbedItem(id=f"{number}-{n}", text=f"text {number} {n}") for n in range(ITEMS)]
                request = partial(jobs.create_embed, collection=name, items=items)
            created.append(await insisting(lambda request=request: request(call(organisation))))
            await asyncio.sleep(KILLS / 2 / JOBS)
        return created

    return stack.do(create)


@pytest.mark.requirement("S0-04")
def test_whatever_is_killed_every_job_ends_and_each_point_is_there_once(stack: JobStack, organisation: str) -> None:
    name = collection(stack, organisation)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with ThreadPoolExecutor(1) as threads:
        submitted = threads.submit(create_all, stack, organisation, name)
        # Each fault in an order of its own, then any of them.
        faults = chance.sample(FAULTS, len(FAULTS))
        for number in range(KILLS):
            time.sleep(chance.uniform(0, 1))
            (faults[number] if number < len(faults) else chance.choice(FAULTS))(stack)
        created = submitted.result()

    ended = stack.ended(organisation, [job.id for job in created])
    assert len(ended) == len({job.id for job in created}) == JOBS
    assert {job.status for job in ended.values()} == {"completed"}, {job.error for job in ended.values()}
    texts = {f"{number}-{n}": f"text {number} {n}" for number in range(JOBS) if number % 3 for n in range(ITEMS)}
    points = stack.points(collection_name(organisation, name))
    assert sorted(point["payload"]["_plinth_id"] for point in points) == sorted(texts)
    for point in points:
        text = texts[point["payload"]["_plinth_id"]]
        assert point["vector"] == pytest.approx(mock_vector("", text, SIZE), abs=1e-6)
    mocked = [point["id"] for point in stack.points("embeddings") if point["payload"]["org_id"] == organisation]
    expected = [point_id_for(organisation, f"asset-{number}", "chunk", "mock", "v1") for number in range(0, JOBS, 3)]
    assert sorted(mocked) == sorted(expected)
    assert stack.sql("SELECT count(*) FROM job_batches JOIN jobs ON id = job_id WHERE org_id = %s", organisation) == [
        (0,)
    ]
