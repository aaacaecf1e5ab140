"""HTTP by hand: what no client library would send, or would wait for."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from contextlib import closing

from tests.conftest import KEY, Server


def connected(server: Server, receive_buffer: int | None = None) -> socket.socket:
    """A connection with the system's time-out of a test."""
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", server.port))
    return connection


def head(method: str, path: str, key: str | None = KEY, **headers: str | int) -> bytes:
    """A request's head."""
    named: Mapping[str, str | int] = {"Host": "h", **({"api-key": key} if key else {}), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in named.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def answered(connection: socket.socket) -> bytes:
    """All that comes until the server closes, or says nothing for the connection's time-out."""
    parts = b""
    try:
        while part := connection.recv(1 << 16):
            parts += part
    except (TimeoutError, ConnectionError):
        pass
    return parts


def exchanged(server: Server, request: bytes) -> tuple[int, bytes]:
    """The status and the rest of one answer, on a connection of its own."""
    with closing(connected(server)) as connection:
        connection.sendall(request)
        connection.settimeout(10)
        answer = b""
        while not _whole(answer, request):
            part = connection.recv(1 << 16)
            if not part:
                break
            answer += part
        return (int(answer.split(b" ", 2)[1]) if answer else 0), answer


def _whole(answer: bytes, request: bytes) -> bool:
    named, end, content = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", named, re.IGNORECASE)
    return bool(end) and (request.startswith(b"HEAD") or length is None or len(content) >= int(length[1]))
