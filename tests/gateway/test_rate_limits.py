"""The limit of an organisation: shared by all gateways, whose leases never let more through than the bucket has."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from plinth.gateway.caller import Caller, Scope
from plinth.gateway.errors import ErrorKind, GatewayError
from plinth.gateway.rate_limits import RateLimits
from plinth.system.ports import free_port
from tests.gateway.conftest import RedisServer


async def admitted(gateways: list[RateLimits], caller: Caller, requests: int) -> int:
    count = 0
    for at in range(requests):
        try:
            await gateways[at % len(gateways)].admit(caller)
            count += 1
        except GatewayError as error:
            refusal = error
    if count < requests:
        assert refusal.kind is ErrorKind.resource_exhausted
        assert refusal.retry_after_s
    return count


@pytest.mark.parametrize(("per_second", "burst"), [(1, 5), (1, 128), (2, 1000)])
def test_gateways_together_admit_what_the_bucket_has(redis: RedisServer, per_second: int, burst: int) -> None:
    async def ask() -> None:
        caller = Caller(f"limited-{uuid.uuid4().hex[:8]}", "u", frozenset(Scope))
        gateways = [RateLimits(f"redis://127.0.0.1:{redis.port}", per_second, burst) for _ in range(3)]
        began = asyncio.get_running_loop().time()
        count = await admitted(gateways, caller, burst + 60)
        # What flows in meanwhile, and the second that has begun.
        flowed = per_second * (asyncio.get_running_loop().time() - began + 1)
        assert burst <= count <= burst + flowed

    asyncio.run(ask())


def test_leases_save_questions_and_let_nobody_through_twice(redis: RedisServer) -> None:
    async def ask() -> None:
        limits = RateLimits(f"redis://127.0.0.1:{redis.port}", 1000, 2000)
        callers = [Caller(f"leased-{uuid.uuid4().hex[:8]}", "u", frozenset(Scope)) for _ in range(2)]
        for caller in callers:
            assert await admitted([limits], caller, 100) == 100
        requests = 0
        limit = limits._shared.limit

        async def counted(*args: object) -> object:
            nonlocal requests
            requests += 1
            return await limit(*args)

        limits._shared.limit = counted  # type: ignore[method-assign]
        await admitted([limits], callers[0], 100)
        assert 1 <= requests < 100

    asyncio.run(ask())


def test_while_redis_is_away_each_counts_for_itself() -> None:
    async def ask() -> None:
        limits = RateLimits(f"redis://127.0.0.1:{free_port()}", 1, 5)
        assert 5 <= await admitted([limits], Caller("away", "u", frozenset(Scope)), 10) < 10
        assert limits.failures >= 10

    asyncio.run(ask())
