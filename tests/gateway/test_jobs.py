"""Jobs, from the request to the point: with a dispatcher, a worker, Postgres, Redis and the embedded engine."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import psycopg
import pytest

from plinth.gateway.caller import Scope
from plinth.gateway.errors import ErrorKind, GatewayError
from plinth.gateway.jobs.config import JobsConfig
from plinth.gateway.jobs.database import connection_pool
from plinth.gateway.jobs.jobs import Jobs
from plinth.gateway.jobs.leases import Leases
from plinth.gateway.jobs.model import ITEMS_MAX, EmbedItem, Job
from plinth.gateway.jobs.outbox import Backlog, Outbox
from plinth.gateway.jobs.schema import migrate, migrations
from plinth.gateway.jobs.worker import JobWorker
from plinth.gateway.metrics import GatewayMetrics
from plinth.gateway.model import CreateCollection, DeletePoints, Get
from plinth.gateway.operations import Operations
from plinth.gateway.providers.mock import MockEmbedder
from plinth.qdrant.search import mock_vector, point_id_for
from tests.conftest import Server
from tests.gateway.conftest import Database, RedisServer
from tests.gateway.job_stack import JobStack, call, job_stack

SIZE = 384


@pytest.fixture(scope="module")
def stack(
    qdrant: Server, redis: RedisServer, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[JobStack]:
    with job_stack(tmp_path_factory.mktemp("jobs"), qdrant, redis, database) as running:
        running.start("dispatcher", "worker")
        yield running
        assert {name: running.stop(name) for name in ("dispatcher", "worker")} == {"dispatcher": 0, "worker": 0}


def items(*texts: str, **payload: Any) -> list[EmbedItem]:
    return [EmbedItem(id=f"doc-{n}", text=text, payload=payload) for n, text in enumerate(texts)]


def collection(stack: JobStack, organisation: str, dimension: int = SIZE, name: str | None = None) -> str:
    """A new collection of the organisation."""
    name = name or f"c{uuid.uuid4().hex[:8]}"
    request = CreateCollection(name=name, dimension=dimension, distance="Dot")

    async def create(_: Jobs, operations: Operations) -> None:
        await operations.create_collection(call(organisation), request)

    stack.do(create)
    return name


def embed(stack: JobStack, organisation: str, name: str, texts: Sequence[EmbedItem], key: str | None = None) -> Job:
    async def create(jobs: Jobs, _: Operations) -> Job:
        return await jobs.create_embed(call(organisation), name, texts, idempotency_key=key)

    return stack.do(create)


def mock(stack: JobStack, organisation: str, asset_id: str = "doc-123", segment_id: str = "chunk-0") -> Job:
    async def create(jobs: Jobs, _: Operations) -> Job:
        return await jobs.create_mock(call(organisation), asset_id, segment_id)

    return stack.do(create)


def vectors(stack: JobStack, organisation: str, name: str, *ids: str) -> list[list[float]]:
    async def get(_: Jobs, operations: Operations) -> list[list[float]]:
        request = Get(ids=list(ids), with_vectors=True)
        return [point.vector or [] for point in await operations.get(call(organisation), name, request)]

    return stack.do(get)


def of(text: str) -> Any:
    return pytest.approx(mock_vector("", text, SIZE), abs=1e-6)


def refusal(stack: JobStack, request: Any) -> GatewayError:
    async def run(jobs: Jobs, _: Operations) -> GatewayError:
        with pytest.raises(GatewayError) as raised:
            await request(jobs)
        return raised.value

    return stack.do(run)


@pytest.mark.requirement("S0-04")
def test_a_mock_job_says_what_the_first_document_shows(stack: JobStack, organisation: str) -> None:
    created = mock(stack, organisation)
    assert (created.status, created.stage, created.result, created.error) == ("pending", "queued", None, None)
    job = stack.ended(organisation, [created.id])[created.id]
    assert (job.status, job.stage, job.progress, job.error) == ("completed", "completed", 100, None)
    point_id = point_id_for(organisation, "doc-123", "chunk-0", "mock", "v1")
    result = dict(job.result)
    completed_at = datetime.fromisoformat(result.pop("completed_at"))
    assert result == {
        "point_id": point_id,
        "collection": "embeddings",
        "vector_size": SIZE,
        "org_id": organisation,
        "asset_id": "doc-123",
        "segment_id": "chunk-0",
    }
    assert datetime.fromisoformat(job.created_at) <= completed_at <= datetime.fromisoformat(job.updated_at)
    (point,) = [point for point in stack.points("embeddings") if point["id"] == point_id]
    assert point["vector"] == pytest.approx(mock_vector("doc-123", "chunk-0", SIZE), abs=1e-6)
    expected = {"org_id": organisation, "asset_id": "doc-123", "segment_id": "chunk-0", "model": "mock"}
    assert expected.items() <= point["payload"].items()
    assert {"model_ver", "text"} <= point["payload"].keys()


def test_the_same_parameters_are_the_same_job_and_others_another(stack: JobStack, organisation: str) -> None:
    first = mock(stack, organisation)
    assert mock(stack, organisation).id == first.id
    stack.ended(organisation, [first.id])
    again = mock(stack, organisation)
    assert (again.id, again.status) == (first.id, "completed")
    # Parts that run together are other parts, and other organisations have other jobs.
    others = [mock(stack, organisation, "doc-12", "3chunk-0"), mock(stack, f"{organisation}-b")]
    assert len({first.id, *(other.id for other in others)}) == 3


def test_an_embed_job_writes_each_text_once(stack: JobStack, organisation: str) -> None:
    name = collection(stack, organisation)
    texts = [EmbedItem(id=f"doc-{n}", text=f"text {n}", payload={"n": n}) for n in range(120)]
    texts.append(EmbedItem(id="doc-7", text="the last of two", payload={"n": -7}))
    job = embed(stack, organisation, name, texts)
    ended = stack.ended(organisation, [job.id])[job.id]
    assert ended.status == "completed"
    assert ended.result.items() >= {"points": 120, "model": "mock", "model_ver": "v1", "vector_size": SIZE}.items()
    assert vectors(stack, organisation, name, "doc-0", "doc-119", "doc-7") == [
        of("text 0"),
        of("text 119"),
        of("the last of two"),
    ]
    physical = stack.sql("SELECT qdrant_collection FROM jobs WHERE id = %s", job.id)[0][0]
    assert len(stack.points(physical)) == 120
    assert stack.sql("SELECT count(*) FROM job_batches WHERE job_id = %s", job.id) == [(0,)]


def test_changed_content_is_embedded_again_and_changed_back_too(stack: JobStack, organisation: str) -> None:
    name = collection(stack, organisation)
    ids = []
    for text in ("old", "new", "old"):
        job = embed(stack, organisation, name, items(text))
        assert stack.ended(organisation, [job.id])[job.id].status == "completed"
        assert vectors(stack, organisation, name, "doc-0") == [of(text)]
        ids.append(job.id)
    assert ids[0] == ids[2] != ids[1]


def test_of_two_jobs_for_one_point_the_later_one_wins_in_whatever_order_they_are_done(
    stack: JobStack, organisation: str
) -> None:
    name = collection(stack, organisation)
    with stack.paused():
        older = embed(stack, organisation, name, items("old", "kept"))
        # As after a failure and its backoff.
        stack.sql("UPDATE outbox SET available_at = now() + interval '1 day' WHERE job_id = %s", older.id)
    newer = embed(stack, organisation, name, items("new"))
    assert stack.ended(organisation, [newer.id])[newer.id].status == "completed"
    stack.sql("UPDATE outbox SET available_at = now() WHERE job_id = %s", older.id)
    ended = stack.ended(organisation, [older.id])[older.id]
    assert (ended.status, ended.result["points"], ended.result["superseded"]) == ("completed", 1, 1)
    assert vectors(stack, organisation, name, "doc-0", "doc-1") == [of("new"), of("kept")]


def test_a_point_that_was_deleted_is_written_again_by_the_same_request(stack: JobStack, organisation: str) -> None:
    name = collection(stack, organisation)
    job = embed(stack, organisation, name, items("a", "b"))
    stack.ended(organisation, [job.id])

    async def delete(_: Jobs, operations: Operations) -> None:
        await operations.delete(call(organisation), name, DeletePoints(ids=["doc-1"]))

    stack.do(delete)
    again = embed(stack, organisation, name, items("a", "b"))
    assert (again.id, again.status) == (job.id, "pending")
    stack.ended(organisation, [job.id])
    assert vectors(stack, organisation, name, "doc-0", "doc-1") == [of("a"), of("b")]


def test_a_callers_key_is_for_one_job(stack: JobStack, organisation: str) -> None:
    name = collection(stack, organisation)
    first = embed(stack, organisation, name, items("a"), key="key-1")
    assert embed(stack, organisation, name, items("a"), key="key-1").id == first.id
    assert embed(stack, organisation, name, items("a"), key="key-2").id == first.id
    error = refusal(
        stack, lambda jobs: jobs.create_embed(call(organisation), name, items("b"), idempotency_key="key-1")
    )
    assert error.kind is ErrorKind.already_exists
    assert stack.sql("SELECT count(*) FROM jobs WHERE org_id = %s", organisation) == [(1,)]
    # Another user's keys are another user's.
    other = stack.do(
        lambda jobs, _: jobs.create_embed(call(organisation, "other"), name, items("b"), idempotency_key="key-1")
    )
    assert other.id != first.id


def test_requests_at_once_make_one_job(stack: JobStack, organisation: str) -> None:
    name = collection(stack, organisation)

    async def many(jobs: Jobs, _: Operations) -> list[Job]:
        requests = [jobs.create_embed(call(organisation), name, items("a", "b")) for _ in range(12)]
        return await asyncio.gather(*requests)

    assert len({job.id for job in stack.do(many)}) == 1


def test_another_organisation_has_no_way_to_a_job(stack: JobStack, organisation: str) -> None:
    job = mock(stack, organisation)
    stranger = call(f"{organisation}-b")
    requests = [
        lambda jobs: jobs.get(stranger, job.id),
        lambda jobs: jobs.cancel(stranger, job.id),
        lambda jobs: jobs.replay(stranger, job.id),
        lambda jobs: jobs.get(stranger, str(uuid.uuid4())),
        lambda jobs: jobs.get(stranger, "../jobs"),
    ]
    errors = [refusal(stack, request) for request in requests]
    assert {(error.kind, error.message) for error in errors} == {(ErrorKind.not_found, "job not found")}
    assert stack.do(lambda jobs, _: jobs.list_dead(stranger)) == []


REFUSED = {
    "no scope": (lambda org: call(org, "u", Scope.read), items("a"), ErrorKind.permission_denied),
    "no items": (call, [], ErrorKind.invalid_argument),
    "too many": (call, items("a") * (ITEMS_MAX + 1), ErrorKind.invalid_argument),
    "a foreign owner": (call, items("a", org_id="another"), ErrorKind.permission_denied),
    "a reserved key": (call, items("a", _plinth_id="x"), ErrorKind.invalid_argument),
    "an empty id": (call, [EmbedItem(id="", text="a")], ErrorKind.invalid_argument),
    "half a character": (
        call,
        [EmbedItem.model_construct(id="a", text="\ud800", payload={})],
        ErrorKind.invalid_argument,
    ),
    "a large integer": (call, items("a", n=2**70), ErrorKind.invalid_argument),
    "too much text": (call, items(*["x" * 32_000] * 1100), ErrorKind.invalid_argument),
}


@pytest.mark.parametrize(("caller", "texts", "kind"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_done_is_refused_before_a_row_is_written(
    stack: JobStack, organisation: str, caller: Any, texts: list[EmbedItem], kind: ErrorKind
) -> None:
    error = refusal(stack, lambda jobs: jobs.create_embed(caller(organisation), "embeddings", texts))
    assert error.kind is kind
    assert stack.sql("SELECT count(*) FROM jobs WHERE org_id = %s", organisation) == [(0,)]
    last = json.loads((stack.directory / "audit.jsonl").read_text().splitlines()[-1])
    assert (last["operation"], last["org_id"], last["outcome"]) == ("create_job", organisation, kind.value)


def test_a_collection_that_is_not_there_or_has_another_dimension_is_named(stack: JobStack, organisation: str) -> None:
    missing = refusal(stack, lambda jobs: jobs.create_embed(call(organisation), "none", items("a")))
    assert missing.kind is ErrorKind.not_found
    small = collection(stack, organisation, dimension=4)
    other = refusal(stack, lambda jobs: jobs.create_embed(call(organisation), small, items("a")))
    assert other.kind is ErrorKind.invalid_argument
    assert "dimension" in other.message


def test_a_job_that_cannot_be_done_is_dead_until_it_is_replayed(stack: JobStack, organisation: str) -> None:
    name = collection(stack, organisation)
    with stack.paused():
        job = embed(stack, organisation, name, items("a", "b"))

        async def drop(_: Jobs, operations: Operations) -> None:
            await operations.delete_collection(call(organisation), name)

        stack.do(drop)
    failed = stack.ended(organisation, [job.id])[job.id]
    assert (failed.status, failed.error, failed.result) == ("failed", "collection not found", None)
    dead = stack.do(lambda jobs, _: jobs.list_dead(call(organisation)))
    assert [entry.id for entry in dead] == [job.id]
    collection(stack, organisation, name=name)
    replayed = stack.do(lambda jobs, _: jobs.replay(call(organisation), job.id))
    assert (replayed.status, replayed.error) == ("pending", None)
    assert stack.ended(organisation, [job.id])[job.id].status == "completed"
    again = refusal(stack, lambda jobs: jobs.replay(call(organisation), job.id))
    assert again.kind is ErrorKind.already_exists
    assert vectors(stack, organisation, name, "doc-0", "doc-1") == [of("a"), of("b")]


def test_a_cancelled_job_writes_nothing_and_the_same_request_does_it_after_all(
    stack: JobStack, organisation: str
) -> None:
    name = collection(stack, organisation)
    with stack.paused():
        job = embed(stack, organisation, name, items("a"))
        cancelled = stack.do(lambda jobs, _: jobs.cancel(call(organisation), job.id))
        assert (cancelled.status, cancelled.stage) == ("cancelled", "cancelled")
        assert stack.sql("SELECT count(*) FROM job_batches WHERE job_id = %s", job.id) == [(0,)]
    other = embed(stack, organisation, name, [EmbedItem(id="other", text="other")])
    stack.ended(organisation, [other.id])
    assert vectors(stack, organisation, name, "doc-0") == []
    assert embed(stack, organisation, name, items("a")).status == "pending"
    assert stack.ended(organisation, [job.id])[job.id].status == "completed"
    # One that has ended stays as it is.
    assert stack.do(lambda jobs, _: jobs.cancel(call(organisation), job.id)).status == "completed"


def test_a_job_is_accepted_while_qdrant_is_away_and_done_when_it_is_back(stack: JobStack, organisation: str) -> None:
    away = JobStack(stack.directory, Server([], stack.directory, 1, 1), stack.redis, stack.dsn, {})
    job = mock(away, organisation)
    assert stack.ended(organisation, [job.id])[job.id].status == "completed"


def attempt(
    stack: JobStack, job_id: str, embedder: Any = None, metrics: GatewayMetrics | None = None, **changes: Any
) -> None:
    """One worker's turn at a job, in this process."""

    async def run(_: Jobs, operations: Operations) -> None:
        config = JobsConfig(postgres_dsn=stack.dsn, redis_url="redis://127.0.0.1:1", **(stack.settings | changes))
        pool = connection_pool(stack.dsn, 3)
        await pool.open()
        leases = Leases(pool, config.lease_s)
        counted = metrics or GatewayMetrics()
        worker = JobWorker(config, leases, operations, embedder or MockEmbedder(), counted, asyncio.Event())
        await worker.run(uuid.UUID(job_id))
        await pool.close()

    stack.do(run)


def test_a_failure_that_may_pass_is_tried_again_later_and_not_for_ever(stack: JobStack, organisation: str) -> None:
    with stack.paused():
        job = mock(stack, organisation)
        away = JobStack(stack.directory, Server([], stack.directory, 1, 1), stack.redis, stack.dsn, stack.settings)
        waits, metrics = [], GatewayMetrics()
        for _ in range(3):
            stack.sql("UPDATE outbox SET available_at = now() WHERE job_id = %s", job.id)
            attempt(away, job.id, metrics=metrics, attempts_max=3, backoff_s=40, backoff_max_s=60)
            waits += stack.sql(
                "SELECT status, stage, attempts, extract(epoch FROM available_at - jobs.updated_at)::float "
                "FROM jobs JOIN outbox ON job_id = jobs.id WHERE jobs.id = %s",
                job.id,
            )
            # A second message of the same job, meanwhile, is none.
            attempt(away, job.id, attempts_max=3)
        (first, second, last) = waits
        assert first[:3] == ("pending", "retrying", 1)
        assert 20 <= first[3] <= 40
        assert second[:3] == ("pending", "retrying", 2)
        assert 30 <= second[3] <= 60
        assert last[:3] == ("failed", "failed", 3)
        (dead,) = stack.do(lambda jobs, _: jobs.list_dead(call(organisation)))
        assert dead.error == "qdrant unavailable"
        assert job_attempts(metrics) == {"retried": 2, "failed": 1}
        # By the request itself, too.
        assert mock(stack, organisation).status == "pending"
    assert stack.ended(organisation, [job.id])[job.id].status == "completed"


def job_attempts(metrics: GatewayMetrics) -> dict[str, float]:
    """What became of the jobs that a worker had, by outcome."""
    (counter,) = (metric for metric in metrics.registry.collect() if metric.name == "plinth_gateway_job_attempts")
    return {sample.labels["outcome"]: sample.value for sample in counter.samples if sample.name.endswith("_total")}


def test_what_became_of_a_job_and_its_texts_are_counted(stack: JobStack, organisation: str) -> None:
    metrics = GatewayMetrics()
    with stack.paused():
        name, gone = collection(stack, organisation), collection(stack, organisation)
        done, rejected = (embed(stack, organisation, each, items("a", "b", "c")) for each in (name, gone))
        stack.do(lambda _, operations: operations.delete_collection(call(organisation), gone))
        attempt(stack, done.id, metrics=metrics)
        attempt(stack, rejected.id, metrics=metrics)
    assert job_attempts(metrics) == {"completed": 1, "rejected": 1}
    assert metrics.registry.get_sample_value("plinth_gateway_job_items_total", {"kind": "embed"}) == 3


def test_the_backlog_is_what_waits_is_done_and_is_dead(stack: JobStack, organisation: str) -> None:
    async def read(_: Jobs, __: Operations) -> Backlog:
        pool = connection_pool(stack.dsn, 1)
        await pool.open()
        backlog = await Outbox(pool).backlog()
        await pool.close()
        return backlog

    with stack.paused():
        before = stack.do(read)
        due, later, dead = (mock(stack, organisation, asset) for asset in ("due", "later", "dead"))
        stack.sql("UPDATE outbox SET available_at = now() - interval '90 s' WHERE job_id = %s", due.id)
        stack.sql("UPDATE outbox SET available_at = now() + interval '1 h' WHERE job_id = %s", later.id)
        stack.sql("UPDATE jobs SET status = 'failed' WHERE id = %s", dead.id)
        backlog = stack.do(read)
        assert (backlog.pending - before.pending, backlog.failed - before.failed) == (2, 1)
        assert 90 <= backlog.longest_wait_s < 3600
        stack.sql("UPDATE outbox SET available_at = now() WHERE job_id = %s", later.id)
        stack.sql("DELETE FROM jobs WHERE id = %s", dead.id)
    stack.ended(organisation, [due.id, later.id])


def test_a_worker_of_another_model_leaves_the_job_to_one_that_has_it(stack: JobStack, organisation: str) -> None:
    """While a stack changes its provider, workers of both run."""
    name = collection(stack, organisation)

    class Newer(MockEmbedder):
        version = "v2"

    with stack.paused():
        job = embed(stack, organisation, name, items("a"))
        attempt(stack, job.id, Newer(), backoff_s=1, backoff_max_s=1)
        assert stack.sql("SELECT status, items_done FROM jobs WHERE id = %s", job.id) == [("pending", 0)]
        assert vectors(stack, organisation, name, "doc-0") == []
    assert stack.ended(organisation, [job.id])[job.id].status == "completed"
    assert vectors(stack, organisation, name, "doc-0") == [of("a")]


def test_a_worker_that_lost_its_job_changes_nothing_more(stack: JobStack, organisation: str) -> None:
    """Cancelled while the provider has its texts; the answer comes when the job is somebody else's."""
    name = collection(stack, organisation)

    class Slow(MockEmbedder):
        async def embed(self, texts: Sequence[str], within_s: float) -> list[list[float]]:
            await asyncio.sleep(2 * stack.settings["lease_s"])
            return await super().embed(texts, within_s)

    with stack.paused():
        job = embed(stack, organisation, name, items("a"))
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(attempt, stack, job.id, Slow())
            deadline = time.monotonic() + 60
            while stack.sql("SELECT status FROM jobs WHERE id = %s", job.id) != [("processing",)]:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            stack.do(lambda jobs, _: jobs.cancel(call(organisation), job.id))
            running.result()
        assert stack.sql("SELECT status, items_done FROM jobs WHERE id = %s", job.id) == [("cancelled", 0)]
        assert vectors(stack, organisation, name, "doc-0") == []


def test_no_text_is_in_redis_or_in_a_log(stack: JobStack, organisation: str) -> None:
    name = collection(stack, organisation)
    secret = f"secret-{uuid.uuid4().hex}"
    job = embed(stack, organisation, name, items(secret))
    stack.ended(organisation, [job.id])
    appended = b"".join(path.read_bytes() for path in stack.redis.directory.rglob("*") if path.is_file())
    assert job.id.encode() in appended
    assert secret.encode() not in appended
    for path in stack.directory.iterdir():
        assert secret not in path.read_text()
    assert stack.sql("SELECT count(*) FROM job_batches WHERE items LIKE %s", f"%{secret}%".encode()) == [(0,)]


def test_jobs_that_ended_long_ago_are_deleted(stack: JobStack, organisation: str) -> None:
    job, kept = mock(stack, organisation), mock(stack, organisation, "kept")
    stack.ended(organisation, [job.id, kept.id])
    stack.sql("UPDATE jobs SET updated_at = now() - interval '8 days' WHERE id = %s", job.id)

    async def delete(_: Jobs, __: Operations) -> int:
        pool = connection_pool(stack.dsn, 1)
        await pool.open()
        deleted = await Outbox(pool).delete_ended(retention_days=7)
        await pool.close()
        return deleted

    assert stack.do(delete) == 1
    tables = {"jobs": "id", "outbox": "job_id", "point_sources": "job_id"}
    for table, column in tables.items():
        assert stack.sql(f"SELECT count(*) FROM {table} WHERE {column} = %s", job.id) == [(0,)]
    assert stack.sql("SELECT count(*) FROM jobs WHERE id = %s", kept.id) == [(1,)]


def test_migrations_of_two_runners_at_once_are_applied_once(database: Database, stack: JobStack) -> None:
    name = f"m{uuid.uuid4().hex[:8]}"
    admin = f"postgresql://compare@{database.host}:{database.port}/postgres"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER {database.user}".encode())
    dsn = psycopg.conninfo.make_conninfo(stack.dsn, dbname=name)
    applied: list[tuple[int, ...]] = []

    def run() -> None:
        with psycopg.connect(dsn) as connection:
            applied.append(migrate(connection))

    runners = [threading.Thread(target=run) for _ in range(4)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert sorted(applied) == [(), (), (), tuple(migrations())]
    # A newer version's is left alone.
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO schema_migrations (version) VALUES (9999)")
        assert migrate(connection) == ()
