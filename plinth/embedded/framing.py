"""Frames between the front and an engine: a number, a word, and bytes of JSON."""

from __future__ import annotations

import asyncio
import socket
import struct

HEADER = struct.Struct(">IHI")
"""Request: its number, length of the operation's name, length of the body. Answer: its number, HTTP status, length."""


def request_header(number: int, name: bytes, body: bytes) -> bytes:
    """What precedes the operation's name and the body of a request."""
    return HEADER.pack(number & 0xFFFFFFFF, len(name), len(body))


def pack(number: int, status: int, body: bytes) -> bytes:
    """An answer's frame."""
    return HEADER.pack(number, status, len(body)) + body


def receive(connection: socket.socket) -> tuple[int, str, bytes] | None:
    """The next request, or None when the front is gone."""
    header = _exactly(connection, HEADER.size)
    if header is None:
        return None
    number, name_length, body_length = HEADER.unpack(header)
    rest = _exactly(connection, name_length + body_length)
    if rest is None:
        return None
    return number, rest[:name_length].decode(), rest[name_length:]


async def receive_answer(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """The next answer; raises `asyncio.IncompleteReadError` when the engine is gone."""
    number, status, length = HEADER.unpack(await reader.readexactly(HEADER.size))
    return number, status, await reader.readexactly(length)


def _exactly(connection: socket.socket, length: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(min(length - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)
