"""Writes whose callers went before Qdrant had answered: what the same owner writes next does not overtake them.

A write that timed out may be on its way still. Were the next one sent at once, over another connection, the first could
land after it, and undo what was acknowledged. So the first is waited for here, as long as Qdrant may take.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from plinth.gateway.errors import timed_out

# How long Qdrant's answer to a write is waited for after its caller has gone, in seconds; then its connection is ended.
PATIENCE_S = 60.0
Key = tuple[str, ...]


class WriteOrder:
    """The unanswered writes of this process, by what they write to."""

    def __init__(self) -> None:
        self._unanswered: dict[Key, set[asyncio.Future[None]]] = {}
        self._landing: set[asyncio.Future[None]] = set()

    async def write(
        self,
        key: Key,
        write: Callable[[float], Awaitable[None]],
        within_s: float,
        landed: Callable[[], Awaitable[None]],
    ) -> None:
        """Write once the earlier unanswered writes of the same key have ended.

        ``write`` gets the seconds that are left, and is to end by itself :data:`PATIENCE_S` after them. ``landed`` is
        called where it ends after its caller has gone. Raises DEADLINE_EXCEEDED after ``within_s``.
        """
        deadline = time.monotonic() + within_s
        if earlier := self._unanswered.get(key):
            await asyncio.wait(set(earlier), timeout=within_s)
            if self._unanswered.get(key) or time.monotonic() >= deadline:
                raise timed_out()
        remaining_s = deadline - time.monotonic()
        task = asyncio.ensure_future(write(remaining_s))
        try:
            await asyncio.wait({task}, timeout=remaining_s)
        finally:
            if not task.done():
                self._leave(key, task, landed)
        if not task.done():
            raise timed_out()
        task.result()

    def _leave(self, key: Key, task: asyncio.Future[None], landed: Callable[[], Awaitable[None]]) -> None:
        self._unanswered.setdefault(key, set()).add(task)

        def ended(ended: asyncio.Future[None]) -> None:
            tasks = self._unanswered[key]
            tasks.discard(ended)
            if not tasks:
                del self._unanswered[key]
            if not ended.cancelled():
                # Nobody hears of a failure: its caller has been told that it may have failed.
                ended.exception()
                landing = asyncio.ensure_future(landed())
                self._landing.add(landing)
                landing.add_done_callback(self._landing.discard)

        task.add_done_callback(ended)
