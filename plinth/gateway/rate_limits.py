"""How many operations an organisation may ask for: a token bucket in Redis, shared by every gateway of the stack."""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import RedisError
from throttled.asyncio import MemoryStore, RedisStore, Throttled, per_sec
from throttled.exceptions import BaseThrottledError

from plinth.gateway.caller import Caller
from plinth.gateway.errors import ErrorKind, GatewayError

log = logging.getLogger("plinth.gateway.limits")
ANSWER_S = 0.05


class RateLimits:
    """The buckets. While Redis is away each gateway counts for itself."""

    def __init__(self, redis_url: str, per_second: int, burst: int) -> None:
        quota = per_sec(per_second, burst=burst)
        prefix = "plinth:gateway:limits"
        self._shared = Throttled(using="token_bucket", quota=quota, store=RedisStore(redis_url), key_prefix=prefix)
        self._own = Throttled(using="token_bucket", quota=quota, store=MemoryStore(), key_prefix=prefix)
        self.failures = 0

    async def admit(self, caller: Caller, cost: int = 1) -> None:
        """Take from the organisation's bucket; raises RESOURCE_EXHAUSTED where it is empty."""
        try:
            async with asyncio.timeout(ANSWER_S):
                result = await self._shared.limit(caller.organisation, cost)
        except (RedisError, BaseThrottledError, TimeoutError, OSError) as error:
            self.failures += 1
            log.debug("the shared limits cannot be asked: %r", error)
            result = await self._own.limit(caller.organisation, cost)
        if result.limited:
            raise GatewayError(
                ErrorKind.resource_exhausted,
                "the organisation asks for more operations than it may; slow down",
                retry_after_s=max(0.001, result.state.retry_after),
            )
