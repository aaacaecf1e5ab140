"""How many operations an organisation may ask for: a token bucket in Redis, shared by every gateway of the stack."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from redis.exceptions import RedisError
from throttled.asyncio import MemoryStore, RateLimitResult, RedisStore, Throttled, per_sec
from throttled.exceptions import BaseThrottledError

from plinth.gateway.caller import Caller
from plinth.gateway.errors import ErrorKind, GatewayError

log = logging.getLogger("plinth.gateway.limits")
ANSWER_S = 0.05
# Redis is asked for so many operations at once at most, and what is left of them after this, in seconds, is forgotten.
LEASE_MAX, LEASE_S = 16, 0.5
LEASES_MAX = 10_000


@dataclass
class _Lease:
    """Operations that Redis has counted and nobody has asked for yet."""

    left: int
    until: float


class RateLimits:
    """The buckets. While Redis is away each gateway counts for itself."""

    def __init__(self, redis_url: str, per_second: int, burst: int) -> None:
        quota = per_sec(per_second, burst=burst)
        prefix = "plinth:gateway:limits"
        self._shared = Throttled(using="token_bucket", quota=quota, store=RedisStore(redis_url), key_prefix=prefix)
        self._own = Throttled(using="token_bucket", quota=quota, store=MemoryStore(), key_prefix=prefix)
        # An organisation loses a quarter of its rate at most to what each gateway forgets.
        self._lease = max(1, min(LEASE_MAX, burst // 64, int(per_second * LEASE_S / 4)))
        self._leases: dict[str, _Lease] = {}
        self.failures = 0

    async def admit(self, caller: Caller) -> None:
        """Take one from the organisation's bucket; raises RESOURCE_EXHAUSTED where it is empty."""
        lease = self._leases.get(caller.organisation)
        if lease and lease.left and lease.until > time.monotonic():
            lease.left -= 1
            return
        if self._lease > 1 and not (await self._limit(caller, self._lease)).limited:
            self._keep(caller, self._lease - 1)
            return
        result = await self._limit(caller, 1)
        if result.limited:
            raise GatewayError(
                ErrorKind.resource_exhausted,
                "the organisation asks for more operations than it may; slow down",
                retry_after_s=max(0.001, result.state.retry_after),
            )

    def _keep(self, caller: Caller, left: int) -> None:
        now = time.monotonic()
        if len(self._leases) >= LEASES_MAX:
            self._leases = {name: lease for name, lease in self._leases.items() if lease.until > now}
        self._leases[caller.organisation] = _Lease(left, now + LEASE_S)

    async def _limit(self, caller: Caller, cost: int) -> RateLimitResult:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._shared.limit(caller.organisation, cost)
        except (RedisError, BaseThrottledError, TimeoutError, OSError) as error:
            self.failures += 1
            log.debug("the shared limits cannot be asked: %r", error)
            return await self._own.limit(caller.organisation, cost)
