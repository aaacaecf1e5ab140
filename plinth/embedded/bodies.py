"""Bodies of requests in bounded memory: one is refused while it is read, and all together share a budget.

Who may only read has a budget apart, so that nobody can keep writers waiting with a key that writes nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.requests import Request

from plinth.embedded.errors import ApiError

WRITERS_BODIES, READERS_BODIES = 2, 1
"""How many bodies of the largest size are held at once."""
UNRESERVED_BYTES = 256 * 1024
"""What of every body is held without a reservation: a query waits for no one's slow upload."""


class Budget:
    """Bytes that are lent in the order of asking."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserved(self, size: int) -> AsyncIterator[None]:
        """Hold so many bytes; waits until they are free."""
        await self._reserve(size)
        try:
            yield
        finally:
            self._release(size)

    async def _reserve(self, size: int) -> None:
        if not self._waiting and size <= self.free:
            self.free -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release(size)
            else:
                self._waiting.remove((size, turn))
                self._serve()
            raise

    def _release(self, size: int) -> None:
        self.free += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting and (self._waiting[0][1].cancelled() or self._waiting[0][0] <= self.free):
            size, turn = self._waiting.popleft()
            if not turn.cancelled():
                self.free -= size
                turn.set_result(None)


class Bodies:
    """Reads bodies of at most ``largest`` bytes."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self._writers, self._readers = Budget(WRITERS_BODIES * largest), Budget(READERS_BODIES * largest)

    @asynccontextmanager
    async def received(self, request: Request, *, reader: bool) -> AsyncIterator[bytes]:
        """A request's body, whose bytes are reserved as long as the block lasts; raises :class:`ApiError` 413."""
        header = request.headers.get("content-length")
        declared = self.largest if header is None else int(header)
        if declared > self.largest:
            raise self._too_large(f"{declared}")
        budget = self._readers if reader else self._writers
        parts: list[bytes] = []
        size = 0
        async with AsyncExitStack() as reservation:
            async for part in request.stream():
                if size <= UNRESERVED_BYTES < size + len(part):
                    await reservation.enter_async_context(budget.reserved(declared))
                size += len(part)
                if size > self.largest:
                    raise self._too_large(f"more than {self.largest}")
                parts.append(part)
            yield parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self, size: str) -> ApiError:
        return ApiError(
            413, f"Payload error: JSON payload ({size} bytes) is larger than allowed ({self.largest} bytes)"
        )
