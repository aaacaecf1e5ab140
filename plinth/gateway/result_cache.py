"""Results of searches in Redis (S2-06), which no write leaves stale.

A result is kept under the collection's generation at the moment before Qdrant was asked. A write moves the generation
after Qdrant has it and before the writer hears of it; so whoever asks after that gets no older result. Redis may
forget the last writes when it restarts, so its run id is a part of each key; a generation that it evicted comes back
as another one. Where a generation cannot be moved, the writer waits until it can be, or until every result from
before has expired. Redis away means slower, never wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger("plinth.gateway.cache")

PREFIX = "plinth:gateway:cache"
# The generation, made where there is none, and the run id of the server; then the result of that generation.
_LOOKUP = """
local generation = redis.call('GET', KEYS[1])
if not generation then
  generation = ARGV[2]
  redis.call('SET', KEYS[1], generation)
end
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local key = KEYS[1] .. ':' .. generation .. ':' .. run_id .. ':' .. ARGV[1]
return {key, redis.call('GET', key)}
"""
RESULT_MAX_BYTES = 256 * 1024
# A result is not worth a longer wait than the search itself.
LOOKUP_S = 0.05


@dataclass(frozen=True)
class Lookup:
    """What the cache has for a query: ``result`` or nothing, and the key to keep one under; no key while it is away."""

    key: str | None = None
    result: bytes | None = None


class ResultCache:
    """The cache of one gateway process. ``ttl_s`` is how long a result is kept, in seconds."""

    def __init__(self, redis: Redis, *, ttl_s: float = 30.0) -> None:
        self._redis = redis
        self._ttl_s = ttl_s
        self._lookup = redis.register_script(_LOOKUP)
        self._moving: Counter[str] = Counter()
        self.hits = self.misses = self.failures = 0

    async def lookup(self, scope: Sequence[str], query: object) -> Lookup:
        """The result of a query in a scope: the names that it was answered within."""
        name = _generation_key(scope)
        if self._moving[name]:
            return Lookup()
        digest = hashlib.sha256(orjson.dumps(query, option=orjson.OPT_SORT_KEYS)).hexdigest()
        try:
            async with asyncio.timeout(LOOKUP_S):
                key, result = await self._lookup(keys=[name], args=[digest, secrets.token_hex(16)])
        except (RedisError, TimeoutError, OSError):
            self.failures += 1
            return Lookup()
        self.hits, self.misses = self.hits + (result is not None), self.misses + (result is None)
        return Lookup(key.decode() if isinstance(key, bytes) else key, result)

    async def keep(self, lookup: Lookup, result: bytes) -> None:
        """Keep the result that Qdrant gave after the lookup."""
        if lookup.key is None or len(result) > RESULT_MAX_BYTES:
            return
        try:
            async with asyncio.timeout(LOOKUP_S):
                await self._redis.set(lookup.key, result, px=int(self._ttl_s * 1000))
        except (RedisError, TimeoutError, OSError):
            self.failures += 1

    async def move(self, scope: Sequence[str]) -> None:
        """Move the generation after a write; returns once no earlier result can be served."""
        name = _generation_key(scope)
        self._moving[name] += 1
        try:
            await self._moved(name, time.monotonic() + self._ttl_s)
        finally:
            self._moving[name] -= 1

    async def _moved(self, name: str, expired_at: float) -> None:
        """Set another generation; gives up when the results of this one have expired, or Redis is gone."""
        delay = 0.01
        while time.monotonic() < expired_at:
            try:
                async with asyncio.timeout(1.0):
                    await self._redis.set(name, secrets.token_hex(16))
                return
            except (RedisError, TimeoutError, OSError) as error:
                self.failures += 1
                if isinstance(error.__context__, ConnectionRefusedError):
                    # One that is gone serves nobody, and comes back with another run id.
                    return
                log.warning("the cache cannot be told of a write: %r", error)
                await asyncio.sleep(delay)
                delay = min(1.0, delay * 2)


def _generation_key(scope: Sequence[str]) -> str:
    return f"{PREFIX}:{hashlib.sha256(orjson.dumps(list(scope))).hexdigest()}"
