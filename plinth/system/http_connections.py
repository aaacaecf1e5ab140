"""HTTP connections that a slow peer cannot hold for long: uvicorn's, with time-outs and limits.

uvicorn closes idle connections between requests and nothing else. Here each connection has patience, in seconds. While
the peer is waited for (a head, a body, a reader of an answer) patience runs out; bytes that move earn it back at the
lowest accepted rate, as Apache's mod_reqtimeout does it. Without patience the connection is cut.

Connections without a login are limited in number, and a new one closes the oldest of the address that has most: a
client with a key is served, however many come without.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LOGIN = "login"
"""The key of a request's state with the function that says: this connection has shown a key."""
TICK_S = 0.5
# The bytes that asyncio's transports buffer between pausing the writer and resuming it.
BUFFER_STEP_BYTES = 48 * 1024
log = logging.getLogger("plinth.embedded")


@dataclass(frozen=True)
class Limits:
    """Limits of a connection: times in seconds, sizes in bytes."""

    head_s: float = 10
    grace_s: float = 10
    linger_s: float = 5
    slowest_rate: int = 64 * 1024
    head_bytes: int = 64 * 1024
    pipelined: int = 16
    unknown_s: float = 0.1
    strangers: int = 128
    connections: int = min(512, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
    unread_answers_bytes: int = 256 * 1024 * 1024


class TooLarge(Exception):
    """A head or a pipeline is beyond its limit; uvicorn answers 400 and closes."""


class Connection(HttpToolsProtocol):
    """One peer's connection."""

    limits = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start counting the connection, and close another one where there are too many."""
        super().connection_made(transport)
        self.opened = self.loop.time()
        self.logged_in, self.in_head = False, True
        self.patience = self.limits.head_s
        self.stopped_at: float | None = None
        self._head_bytes = self._unparsed = self._unsent = 0
        self._timer = self.loop.call_later(TICK_S, self._tick)
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting the connection."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; bytes that yield no event (an endless header, chunk extension or trailer) are not collected."""
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > self.limits.head_bytes and not self.transport.is_closing():
            self.send_400_response("Request header fields are too large.")

    def on_message_begin(self) -> None:
        """Start the time limit of a request's head, at its first byte."""
        super().on_message_begin()
        self.in_head, self.patience = True, self.limits.head_s
        self._head_bytes = self._unparsed = 0
        self.scope["state"][LOGIN] = self.log_in

    def on_url(self, url: bytes) -> None:
        """Count a part of the request line."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, or a trailer after the body."""
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the time limit of the body."""
        if len(self.pipeline) >= self.limits.pipelined:
            raise TooLarge
        self.in_head, self.patience = False, self.limits.grace_s
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Reset the count of unparsed bytes, as a chunk begins."""
        self._unparsed = 0

    def on_body(self, body: bytes) -> None:
        """Earn patience for a part of the body."""
        self._unparsed = 0
        if not self.cycle.response_complete:
            self._earn(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Start the time limit of reading the answer, as the whole request has arrived."""
        self.patience = self.limits.grace_s
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Leave a peer that still sends a body a moment to read the complete answer."""
        if self.cycle.more_body:
            self.patience = min(self.patience, self.limits.linger_s)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start counting the answer of a peer that does not read; the total of such answers is limited."""
        super().pause_writing()
        self.stopped_at = self.loop.time()
        self._bound_answers()

    def resume_writing(self) -> None:
        """Earn patience, as the peer has read."""
        self.stopped_at = None
        self._earn(BUFFER_STEP_BYTES)
        super().resume_writing()

    def log_in(self) -> None:
        """Mark the connection as authenticated."""
        self.logged_in = True

    @property
    def address(self) -> str:
        """The peer's address, without its port."""
        return self.client[0] if self.client else ""

    @property
    def idle(self) -> bool:
        """Whether the connection is between requests."""
        return not self.in_head and (self.cycle is None or self.cycle.response_complete)

    @property
    def unsent(self) -> int:
        """Bytes of answers that the peer has not read."""
        return self.transport.get_write_buffer_size()

    def cut(self, why: str) -> None:
        """Close the connection at once, and free its buffers."""
        log.info("connection of %s is cut: %s", self.address, why)
        self.transport.abort()

    def _tick(self) -> None:
        unsent = self.unsent
        self._earn(max(0, self._unsent - unsent))
        self._unsent = unsent
        if self._waits_for_peer(unsent):
            self.patience -= TICK_S
        if self.patience < 0:
            self.cut("it is too slow")
        else:
            self._timer = self.loop.call_later(TICK_S, self._tick)

    def _waits_for_peer(self, unsent: int) -> bool:
        if unsent:
            return True
        if self.flow.read_paused:
            return False
        # Line ends between requests stop uvicorn's own timer, and begin no request.
        forgotten = self.idle and self.timeout_keep_alive_task is None
        return self.in_head or forgotten or (self.cycle is not None and self.cycle.more_body)

    def _earn(self, size: int) -> None:
        self.patience = min(self.limits.grace_s, self.patience + size / self.limits.slowest_rate)

    def _count_head(self, size: int) -> None:
        self._unparsed = 0
        self._head_bytes += size
        if self._head_bytes > self.limits.head_bytes:
            raise TooLarge

    def _make_room(self) -> None:
        connections = self._open()
        strangers = [connection for connection in connections if not connection.logged_in and connection is not self]
        crowded = len(connections) > self.limits.connections
        if not crowded:
            # Many that come at once have had no time to show a key.
            youngest = self.loop.time() - self.limits.unknown_s
            strangers = [stranger for stranger in strangers if stranger.opened <= youngest]
        if strangers and (crowded or len(strangers) >= self.limits.strangers):
            ((busiest, _),) = Counter(stranger.address for stranger in strangers).most_common(1)
            _oldest(stranger for stranger in strangers if stranger.address == busiest).cut("newer ones without a key")
        elif crowded:
            idle = [connection for connection in connections if connection.idle]
            (_oldest(idle) if idle else self).cut(f"there are {self.limits.connections} others")

    def _bound_answers(self) -> None:
        unread = (connection for connection in self._open() if connection.stopped_at is not None)
        stopped = sorted(unread, key=lambda connection: connection.stopped_at or 0)
        held = sum(connection.unsent for connection in stopped)
        while held > self.limits.unread_answers_bytes and len(stopped) > 1:
            oldest = stopped.pop(0)
            held -= oldest.unsent
            oldest.cut("it does not read its answer")

    def _open(self) -> list[Connection]:
        ours = (connection for connection in self.connections if isinstance(connection, Connection))
        return [connection for connection in ours if not connection.transport.is_closing()]


def _oldest(connections: Iterable[Connection]) -> Connection:
    return min(connections, key=lambda connection: connection.opened)
