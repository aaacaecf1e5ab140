"""The gateway's connections to Qdrant: kept, ended and never answered with what was for another request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from plinth.gateway import http_connections
from plinth.gateway.http_connections import ConnectionLostError, HttpConnections

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script, **options: float) -> AsyncIterator[HttpConnections]:
    """Connections to a server that does with each of them what the script says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connections = HttpConnections(f"http://127.0.0.1:{port}", **options)  # type: ignore[arg-type]
    try:
        yield connections
    finally:
        await connections.close()
        server.close()


async def next_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    ],
    ids=["whole", "in chunks", "the last of its connection", "empty"],
)
def test_an_answer_comes_whole_however_it_is_cut(answer: bytes, body: bytes) -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await next_request(reader))
            for at in range(len(answer)):
                writer.write(answer[at : at + 1])
                await writer.drain()
            if b"close" in answer:
                return

    async def ask() -> None:
        async with serving(script) as connections:
            for _ in range(2):
                got = await connections.request("POST", "/a?b=1", {"api-key": "k"}, b"{}")
                assert (got.status, got.body) == (200, body)

    asyncio.run(ask())
    assert all(
        request.startswith(b"POST /a?b=1 HTTP/1.1\r\n") and b"api-key: k\r\n" in request and request.endswith(b"{}")
        for request in seen
    )


@pytest.mark.parametrize(
    "answer",
    [b"", OK[:-1], b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n" + b"x" * 9000],
    ids=["nothing", "a part", "no HTTP", "more than it may"],
)
def test_what_is_no_answer_is_told_as_a_lost_connection(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "ANSWER_MAX_BYTES", 8000)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next_request(reader)
        writer.write(answer)

    async def ask() -> None:
        async with serving(script) as connections:
            with pytest.raises(ConnectionLostError):
                await connections.request("GET", "/", {})

    asyncio.run(ask())


def test_a_server_that_is_not_there_is_told_as_such() -> None:
    async def ask() -> None:
        with pytest.raises(ConnectionLostError):
            await HttpConnections("http://127.0.0.1:1").request("GET", "/", {})

    asyncio.run(ask())


def test_a_late_answer_is_never_that_of_the_next_request() -> None:
    """Who gives up ends the connection: what comes on it afterwards is nobody's."""

    async def ask() -> None:
        is_ended, count = asyncio.Event(), 0

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            count += 1
            if count == 1:
                await next_request(reader)
                assert await reader.read() == b""
                is_ended.set()
                return
            while request := await next_request(reader):
                path = request.split()[1]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))

        async with serving(script) as connections:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connections.request("GET", "/first", {}), 0.05)
            await asyncio.wait_for(is_ended.wait(), 20)
            answers = await asyncio.gather(*(connections.request("GET", f"/{n}", {}) for n in range(20)))
            assert [answer.body for answer in answers] == [b"/%d" % n for n in range(20)]

    asyncio.run(ask())


@pytest.mark.parametrize(("idle_s", "connected"), [(60.0, 1), (0.0, 3)], ids=["kept", "idle for too long"])
def test_a_connection_serves_again_while_it_is_fresh(idle_s: float, connected: int) -> None:
    count = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        while await next_request(reader):
            writer.write(OK)

    async def ask() -> None:
        async with serving(script, idle_s=idle_s) as connections:
            for _ in range(3):
                await connections.request("GET", "/", {})
                await asyncio.sleep(0.001)

    asyncio.run(ask())
    assert count == connected
