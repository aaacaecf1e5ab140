"""The cache of results: faster, and never older than a write that its reader knows of (S2-06)."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from plinth.gateway import result_cache
from plinth.gateway.result_cache import ResultCache
from tests.gateway.conftest import RedisServer

SCOPE, QUERY = ["collection", "org"], {"vector": [1.0], "top_k": 10}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a lookup may take longer than the search that it saves."""
    monkeypatch.setattr(result_cache, "LOOKUP_S", 10.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that this test may kill."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop(signal.SIGKILL)


def connected(store: RedisServer, **options: Any) -> aioredis.Redis:
    return aioredis.Redis(port=store.port, retry=Retry(NoBackoff(), 0), socket_timeout=1, **options)


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))  # type: ignore[arg-type]


def test_a_result_is_served_again_until_a_write(redis: RedisServer) -> None:
    async def work() -> None:
        async with connected(redis) as client:
            cache, other = ResultCache(client), ResultCache(client)
            scope = ["c", "served-again"]
            first = await cache.lookup(scope, QUERY)
            assert first.result is None
            await cache.keep(first, b"result")
            assert (await other.lookup(scope, QUERY)).result == b"result"
            assert (await other.lookup(scope, {**QUERY, "top_k": 9})).result is None
            assert (await other.lookup(["c", "another"], QUERY)).result is None
            await cache.move(scope)
            assert (await other.lookup(scope, QUERY)).result is None

    run(work)


def test_what_was_read_before_a_write_is_not_served_after_it(redis: RedisServer) -> None:
    async def work() -> None:
        async with connected(redis) as client:
            cache = ResultCache(client)
            scope = ["c", "late"]
            before = await cache.lookup(scope, QUERY)
            await cache.move(scope)
            await cache.keep(before, b"stale")
            assert (await cache.lookup(scope, QUERY)).result is None

    run(work)


@pytest.mark.requirement("S2-06")
def test_no_reader_sees_a_value_older_than_a_write_acknowledged_before_its_query(redis: RedisServer) -> None:
    """Readers and writers of two gateways at random moments, over a store that takes its time."""
    value = acknowledged = 0

    async def read(cache: ResultCache, rng: random.Random) -> None:
        for _ in range(150):
            known = acknowledged
            lookup = await cache.lookup(["c", "race"], QUERY)
            if lookup.result is None:
                await asyncio.sleep(rng.random() / 500)
                seen = value
                await asyncio.sleep(rng.random() / 500)
                await cache.keep(lookup, str(seen).encode())
            else:
                seen = int(lookup.result)
            assert seen >= known
            await asyncio.sleep(rng.random() / 1000)

    async def write(cache: ResultCache, rng: random.Random) -> None:
        nonlocal value, acknowledged
        for _ in range(60):
            value += 1
            written = value
            await asyncio.sleep(rng.random() / 500)
            await cache.move(["c", "race"])
            acknowledged = max(acknowledged, written)
            await asyncio.sleep(rng.random() / 200)

    async def work() -> None:
        rng = random.Random(7)
        async with connected(redis) as one, connected(redis) as two:
            caches = [ResultCache(one), ResultCache(two)]
            await asyncio.gather(
                *(read(caches[n % 2], rng) for n in range(8)), *(write(caches[n % 2], rng) for n in range(2))
            )
            assert sum(cache.hits for cache in caches) > 0

    run(work)


def test_a_redis_that_forgot_a_write_serves_nothing_from_before_it(store: RedisServer) -> None:
    """It is killed, and what it knew of the last write goes with it: the generation is back, the results are not."""

    async def work() -> None:
        async with connected(store) as client:
            cache = ResultCache(client)
            before = await cache.lookup(SCOPE, QUERY)
            await cache.keep(before, b"old")
            assert (await cache.lookup(SCOPE, QUERY)).result == b"old"
            assert before.key is not None
            name = before.key.rpartition(":")[0]
            generation = await client.get(name)
            await cache.move(SCOPE)
            await client.set(name, generation)
            # The write is undone: the same generation stands there again, as after a crash before it was on disk.
            assert (await cache.lookup(SCOPE, QUERY)).result == b"old"
        store.stop(signal.SIGKILL)
        store.start()
        async with connected(store) as client:
            assert await client.get(name) is not None
            assert (await ResultCache(client).lookup(SCOPE, QUERY)).result is None

    run(work)


def test_a_generation_that_was_evicted_comes_back_as_another(redis: RedisServer) -> None:
    async def work() -> None:
        async with connected(redis) as client:
            cache = ResultCache(client)
            scope = ["c", "evicted"]
            before = await cache.lookup(scope, QUERY)
            await cache.keep(before, b"old")
            assert before.key is not None
            await client.delete(before.key.rpartition(":")[0])
            assert (await cache.lookup(scope, QUERY)).result is None

    run(work)


def test_while_redis_is_gone_a_write_goes_on_at_once(store: RedisServer) -> None:
    async def work() -> None:
        async with connected(store) as client:
            cache = ResultCache(client, ttl_s=3600)
            store.stop(signal.SIGKILL)
            await cache.move(SCOPE)
            lookup = await cache.lookup(SCOPE, QUERY)
            assert (lookup.key, lookup.result) == (None, None)
            await cache.keep(lookup, b"x")
            assert cache.failures >= 2
        store.start()

    run(work)


def test_a_write_that_a_hung_redis_is_not_told_waits_until_no_old_result_is_left(store: RedisServer) -> None:
    async def work() -> None:
        async with connected(store, socket_connect_timeout=1) as client, connected(store) as other:
            cache, reader = ResultCache(client, ttl_s=0.5), ResultCache(other, ttl_s=0.5)
            await cache.keep(await cache.lookup(SCOPE, QUERY), b"old")
            assert store.process is not None
            store.process.send_signal(signal.SIGSTOP)
            await cache.move(SCOPE)
            store.process.send_signal(signal.SIGCONT)
            assert (await reader.lookup(SCOPE, QUERY)).result is None

    run(work)


def test_too_large_a_result_is_not_kept(redis: RedisServer) -> None:
    async def work() -> None:
        async with connected(redis) as client:
            cache = ResultCache(client)
            scope = ["c", "large"]
            await cache.keep(await cache.lookup(scope, QUERY), b"x" * 300_000)
            assert (await cache.lookup(scope, QUERY)).result is None

    run(work)
