"""HTTP/1.1 to one server over connections that are kept: bytes out, bytes in, and nothing that a search has no use for.

A request takes 0.03 ms of CPU, with httpx 1.2 ms, and there is one in each search. The parser is httptools, which
uvicorn has too. A connection carries one request at a time. A server behind the user's proxy is asked by httpx.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

import httpx
from httptools import HttpParserError, HttpResponseParser

from plinth.system.http_client import async_client_for, proxy_for

# A server that takes longer to be connected to is away, in seconds.
CONNECT_S = 5.0
# An answer that is larger is none that the gateway asked for.
ANSWER_MAX_BYTES = 256 * 2**20
_PORTS = {"http": 80, "https": 443}


class ConnectionLostError(Exception):
    """The server cannot be reached, or a connection ended before the answer was whole."""


@dataclass(frozen=True)
class HttpAnswer:
    """A status and a whole body."""

    status: int
    body: bytes


class Connections(Protocol):
    """Connections to one server."""

    async def request(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> HttpAnswer:
        """The answer; raises :class:`ConnectionLostError`. ``target`` is a path, quoted, with its query."""

    async def close(self) -> None:
        """End those that nobody uses."""


def connections_to(url: str, context: ssl.SSLContext | None, *, idle_s: float) -> Connections:
    """Connections to the server of an address: its own, or by the user's proxy where that is the way to it.

    Raises :class:`plinth.errors.UserError` where the proxy cannot be used.
    """
    return ProxiedConnections(url, context) if proxy_for(url) else HttpConnections(url, context=context, idle_s=idle_s)


class ProxiedConnections:
    """Connections by the user's proxy."""

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        self._client = async_client_for(url, verify=context, timeout=httpx.Timeout(None, connect=CONNECT_S))

    async def request(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> HttpAnswer:
        """The answer; raises :class:`ConnectionLostError`."""
        try:
            answer = await self._client.request(method, target, headers=dict(headers), content=body)
        except httpx.HTTPError as error:
            raise ConnectionLostError(f"it cannot be reached by the proxy: {error}") from error
        return HttpAnswer(answer.status_code, answer.content)

    async def close(self) -> None:
        """End them."""
        await self._client.aclose()


class HttpConnections:
    """Connections to the server of an address, by no proxy.

    ``idle_max`` of them are kept between requests, ``idle_s`` at most: less than the server waits before it ends one.
    """

    def __init__(
        self, url: str, *, context: ssl.SSLContext | None = None, idle_max: int = 64, idle_s: float = 3.0
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        self._context = context if parts.scheme == "https" else None
        self._host_header = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path.rstrip("/")
        self._idle_max, self._idle_s = idle_max, idle_s
        # The one that was used last is used next, so that those that are not needed end.
        self._idle: deque[_Connection] = deque()

    async def request(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> HttpAnswer:
        """The answer; raises :class:`ConnectionLostError`. Who is cancelled meanwhile ends the connection.

        ``target`` is a path, quoted, with its query.
        """
        connection = self._kept() or await self._connected()
        lines = [f"{method} {self._prefix}{target} HTTP/1.1", f"host: {self._host_header}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines.append(f"content-length: {len(body)}")
        try:
            answer = await connection.exchange("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        except BaseException:
            connection.close()
            raise
        if connection.is_reusable and len(self._idle) < self._idle_max:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    async def close(self) -> None:
        """End those that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def _kept(self) -> _Connection | None:
        oldest = time.monotonic() - self._idle_s
        while self._idle and (self._idle[0].idle_since < oldest or not self._idle[0].is_reusable):
            self._idle.popleft().close()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection
        return None

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._context)
        except OSError as error:
            raise ConnectionLostError(f"it cannot be reached: {error or 'it does not answer'}") from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection, and what has come of the answer that is waited for."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[HttpAnswer] | None = None
        self._parser = HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._size = 0
        self._is_kept = True

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow."""
        return self._is_kept and self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes) -> HttpAnswer:
        """Send a request and wait for its answer."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionLostError("the connection has ended")
        self._waiting = asyncio.get_running_loop().create_future()
        self._chunks, self._size = [], 0
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        # Both loops set TCP_NODELAY themselves.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """A part of an answer; one that nobody waits for ends the connection."""
        try:
            if self._waiting is None or self._waiting.done():
                raise ConnectionLostError("it answers what was not asked")
            self._parser.feed_data(data)
        except (HttpParserError, ConnectionLostError) as error:
            self._fail(ConnectionLostError(f"the answer is no HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._fail(ConnectionLostError(f"the connection has ended: {exc or 'by the server'}"))

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._size += len(body)
        if self._size > ANSWER_MAX_BYTES:
            raise ConnectionLostError("the answer is too large")
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._is_kept = self._parser.should_keep_alive()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(HttpAnswer(self._parser.get_status_code(), b"".join(self._chunks)))

    def _fail(self, error: ConnectionLostError) -> None:
        self._is_kept = False
        self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
