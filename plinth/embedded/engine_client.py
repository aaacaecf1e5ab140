"""The front's end of a collection's engine process."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from plinth.embedded import framing
from plinth.embedded.errors import ApiError

STOP_GRACE_S = 20.0
RETRY_S = 5.0


class EngineProxy:
    """Sends requests to an engine process, and starts it anew when it died: its log of writes has them all."""

    def __init__(self, directory: Path, config: dict[str, Any], indexes: dict[str, Any]) -> None:
        self.directory = directory
        self.config = config
        self.indexes = indexes
        self.process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._open = False
        self._waiting: dict[int, asyncio.Future[tuple[int, bytes]]] = {}
        self._number = 0
        self._starting = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self.failure: ApiError | None = None
        """Why the last start failed; no other is tried for a while."""
        self._failed_at = 0.0

    @property
    def queued(self) -> int:
        """Requests that the engine has not answered."""
        return len(self._waiting)

    async def call(self, operation: str, body: bytes = b"{}") -> bytes:
        """The JSON of an operation's result; raises :class:`ApiError`."""
        if not self._open:
            await self.start()
        status, answer = await self._send(operation, body)
        if status != 200:
            raise ApiError(status, orjson.loads(answer))
        return answer

    async def configure(self, config: dict[str, Any], indexes: dict[str, Any]) -> None:
        """Hand the engine a changed config."""
        self.config, self.indexes = config, indexes
        await self.call("configure", orjson.dumps({"config": config, "indexes": indexes}))

    async def start(self) -> None:
        """Start the process and open the shard; returns once it answers."""
        async with self._starting:
            if self._open:
                return
            if self.failure is not None and time.monotonic() - self._failed_at < RETRY_S:
                raise self.failure
            ours, theirs = socket.socketpair()
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "plinth.embedded.engine_process", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            reader, writer = await asyncio.open_connection(sock=ours)
            self._writer = writer
            self._reading = asyncio.create_task(self._read(reader))
            described = {"directory": str(self.directory), "config": self.config, "indexes": self.indexes}
            try:
                status, answer = await self._send("open", orjson.dumps(described))
                if status != 200:
                    raise ApiError(status, orjson.loads(answer))
            except ApiError as error:
                self.failure, self._failed_at = error, time.monotonic()
                await self._reading
                raise
            self._open, self.failure = True, None

    async def stop(self) -> None:
        """Let the engine flush and end."""
        if self._writer is None or self.process is None:
            return
        # The engine reads the end of the stream as the front's leave.
        self._writer.close()
        try:
            await asyncio.wait_for(asyncio.to_thread(self.process.wait), STOP_GRACE_S)
        except TimeoutError:
            self.process.kill()

    async def _send(self, operation: str, body: bytes) -> tuple[int, bytes]:
        writer = self._writer
        if writer is None:
            raise _gone()
        self._number += 1
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = answer
        # When the writing fails nobody awaits it.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        name = operation.encode()
        # Not joined: a body may be large.
        writer.writelines((framing.request_header(self._number, name, body), name, body))
        try:
            await writer.drain()
            return await answer
        except ConnectionError as error:
            raise _gone() from error

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                number, status, body = await framing.receive_answer(reader)
                waiting = self._waiting.pop(number, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result((status, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            if self._writer is not None:
                self._writer.transport.abort()
            self._writer, self._open = None, False
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(_gone())
            self._waiting.clear()
            if self.process is not None:
                await asyncio.to_thread(self.process.wait)


def _gone() -> ApiError:
    return ApiError(500, "Service internal error: the collection's engine process ended; it starts anew, send it again")
