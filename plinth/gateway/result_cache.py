"""Results of searches in Redis (S2-06), which no write leaves stale.

A result is kept with the collection's generation at the moment before Qdrant was asked, and served while that is the
generation still. A write moves the generation after Qdrant has it and before the writer hears of it; so whoever asks
after that gets no older result. Redis may forget the last writes when it restarts, so its run id is kept with each
result too: a connection learns it once, for it ends with the server. A generation that was evicted comes back as
another one. Where a generation cannot be moved, the writer waits until it can be, or until every result from
before has expired. Redis away means slower, never wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = logging.getLogger("plinth.gateway.cache")

PREFIX = "plinth:gateway:cache"
RESULT_MAX_BYTES = 256 * 1024
GENERATION_BYTES = 16
_RUN_ID = re.compile(rb"run_id:(\w+)")
# A result is not worth a longer wait than the search itself.
LOOKUP_S = 0.05


@dataclass(frozen=True)
class Lookup:
    """What the cache has for a query: ``result`` or nothing, and where to keep one; no ``key`` while it is away.

    ``stamp`` is the generation and the server that a result kept there belongs to.
    """

    key: str | None = None
    result: bytes | None = None
    stamp: bytes = b""


class ResultCache:
    """The cache of one gateway process. ``ttl_s`` is how long a result is kept, in seconds."""

    def __init__(self, redis: Redis, *, ttl_s: float = 30.0) -> None:
        self._redis = redis
        self._ttl_s = ttl_s
        # Forgotten as soon as a connection is made again: another server may be there.
        self._run_ids: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()
        self._moving: Counter[str] = Counter()
        self.hits = self.misses = self.failures = 0

    async def lookup(self, scope: Sequence[str], query: object) -> Lookup:
        """The result of a query in a scope: the names that it was answered within."""
        name = _generation_key(scope)
        if self._moving[name]:
            return Lookup()
        key = f"{name}:{hashlib.sha256(orjson.dumps(query, option=orjson.OPT_SORT_KEYS)).hexdigest()}"
        try:
            async with asyncio.timeout(LOOKUP_S), self._connection() as (connection, run_id):
                generation, stored = await _command(connection, "MGET", name, key)
                if generation is None:
                    generation = secrets.token_bytes(GENERATION_BYTES)
                    generation = await _command(connection, "SET", name, generation, "NX", "GET") or generation
        except (RedisError, TimeoutError, OSError):
            self.failures += 1
            return Lookup()
        stamp = generation + run_id
        result = stored[len(stamp) :] if stored is not None and stored.startswith(stamp) else None
        self.hits, self.misses = self.hits + (result is not None), self.misses + (result is None)
        return Lookup(key, result, stamp)

    async def keep(self, lookup: Lookup, result: bytes) -> None:
        """Keep the result that Qdrant gave after the lookup."""
        if lookup.key is None or len(result) > RESULT_MAX_BYTES:
            return
        try:
            async with asyncio.timeout(LOOKUP_S):
                async with self._connection() as (connection, _):
                    await _command(connection, "SET", lookup.key, lookup.stamp + result, "PX", int(self._ttl_s * 1000))
        except (RedisError, TimeoutError, OSError):
            self.failures += 1

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[Any, bytes]]:
        """A connection of the pool, and the run id of the server that it leads to."""
        pool = self._redis.connection_pool
        connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            run_id = self._run_ids.get(connection)
            if run_id is None:
                info = await _command(connection, "INFO", "server")
                connection.register_connect_callback(self._forget)
                run_id = self._run_ids[connection] = _RUN_ID.search(info)[1]  # type: ignore[index]
            yield connection, run_id
        finally:
            await pool.release(connection)

    def _forget(self, connection: Any) -> None:
        self._run_ids.pop(connection, None)

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
                    await self._redis.set(name, secrets.token_bytes(GENERATION_BYTES))
                return
            except (RedisError, TimeoutError, OSError) as error:
                self.failures += 1
                if isinstance(error.__context__, ConnectionRefusedError):
                    # One that is gone serves nobody, and comes back with another run id.
                    return
                log.warning("the cache cannot be told of a write: %r", error)
                await asyncio.sleep(delay)
                delay = min(1.0, delay * 2)


async def _command(connection: Any, *parts: str | bytes | int) -> Any:
    """What the server answers: the way by the client's own methods takes five times as long."""
    await connection.send_command(*parts)
    return await connection.read_response()


def _generation_key(scope: Sequence[str]) -> str:
    return f"{PREFIX}:{hashlib.sha256(orjson.dumps(list(scope))).hexdigest()}"
