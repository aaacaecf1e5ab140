"""The embedded engine in bounded memory and time, whoever sends and whoever does not read."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from plinth.qdrant.client import Qdrant
from tests.conftest import KEY, READ_ONLY_KEY, Server
from tests.contract.raw import answered, connected, exchanged, head

MIB = 1024 * 1024
BOUND_MIB = 16
SIZE = 64
SLOW = 300
# An answer of half a MiB: more than the buffers of a connection whose peer does not read.
UNREAD_POINTS = 600
DEADLINE_S = 90


@pytest.fixture
def server(embedded: Callable[..., Server]) -> Server:
    """A server with a collection, and a bound of 16 MiB on bodies."""
    started = embedded(max_request_size_mb=BOUND_MIB)
    with Qdrant(started.url, KEY) as client:
        client.call("PUT", "/collections/c", {"vectors": {"size": SIZE, "distance": "Dot"}})
        points = [{"id": i, "vector": [i / 7] * SIZE} for i in range(UNREAD_POINTS)]
        client.call("PUT", "/collections/c/points?wait=true", {"points": points})
    return started


@contextmanager
def peak(server: Server) -> Iterator[Callable[[], int]]:
    """By how many bytes the front's resident memory has grown at most since now."""
    assert server.process is not None
    proc = Path(f"/proc/{server.process.pid}")
    (proc / "clear_refs").write_text("5")

    def high_water() -> int:
        lines = (proc / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

    before = high_water()
    yield lambda: high_water() - before


def test_a_body_beyond_the_bound_is_refused_by_its_length_before_it_is_sent(server: Server) -> None:
    status, answer = exchanged(
        server, head("POST", "/collections/c/points/query", READ_ONLY_KEY, Content_Length=200 * MIB)
    )
    assert status == 413
    assert "larger than allowed" in json.loads(answer.split(b"\r\n\r\n")[1])["status"]["error"]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("key", [READ_ONLY_KEY, None])
def test_a_body_of_200_mib_does_not_grow_the_server_by_more_than_the_bound(
    server: Server, chunked: bool, key: str | None
) -> None:
    def content() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * MIB

    headers = {"api-key": key} if key else {}
    with peak(server) as grown, suppress(httpx.HTTPError):
        sent = content() if chunked else b"".join(content())
        answer = httpx.post(f"{server.url}/collections/c/points/query", headers=headers, content=sent)
        assert answer.status_code == (413 if key else 401)
    assert grown() < 1.5 * BOUND_MIB * MIB


def test_many_bodies_at_once_are_bounded_together_and_all_are_answered(server: Server) -> None:
    body = b"{" + b" " * (BOUND_MIB * MIB - MIB) + b"}"

    def count(_: int) -> int:
        answer = httpx.post(
            f"{server.url}/collections/c/points/count", headers={"api-key": KEY}, content=body, timeout=DEADLINE_S
        )
        return answer.status_code

    with peak(server) as grown, ThreadPoolExecutor(24) as pool:
        assert set(pool.map(count, range(24))) == {200}
    assert grown() < 8 * BOUND_MIB * MIB


def test_slow_bodies_of_the_read_only_key_keep_neither_writers_nor_queries_waiting(server: Server) -> None:
    slow = [connected(server) for _ in range(8)]
    for connection in slow:
        request = head("POST", "/collections/c/points/query", READ_ONLY_KEY, Content_Length=BOUND_MIB * MIB)
        connection.sendall(request + b" " * MIB)
    body = b'{"points": [{"id": 1, "vector": ' + json.dumps([0.5] * SIZE).encode() + b"}]" + b" " * MIB + b"}"
    url = f"{server.url}/collections/c/points"
    assert httpx.put(url, headers={"api-key": KEY}, content=body, timeout=5).status_code == 200
    search = {"query": [0.5] * SIZE}
    assert httpx.post(f"{url}/query", headers={"api-key": READ_ONLY_KEY}, json=search, timeout=5).status_code == 200
    for connection in slow:
        connection.close()


def slow_clients(server: Server) -> tuple[list[tuple[socket.socket, bytes]], int]:
    """Connections of four kinds, each with the byte that it sends now and then, and how many were held at once.

    A silent one sends no byte. On a busy machine the first are cut before the last have come.
    """
    scroll = json.dumps({"limit": UNREAD_POINTS, "with_vector": True}).encode()
    body = head("POST", "/collections/c/points/query", READ_ONLY_KEY, Content_Length=MIB)
    unread = head("POST", "/collections/c/points/scroll", READ_ONLY_KEY, Content_Length=len(scroll)) + scroll
    kinds: list[tuple[bytes, bytes]] = [
        (b"", b""),
        (b"GET /collections HTTP/1.1\r\nX-", b"a"),
        (body, b" "),
        (unread, b""),
    ]
    clients = []
    held = 0
    for number in range(SLOW):
        sent, dribbled = kinds[number % len(kinds)]
        connection = connected(server, receive_buffer=4096)
        connection.sendall(sent)
        clients.append((connection, dribbled))
        if number % 20 == 0 or number == SLOW - 1:
            held = max(held, connections(server))
    return clients, held


def p95_ms(server: Server) -> float:
    """Of searches of a client that opens a connection for each."""
    times = []
    for _ in range(150):
        began = time.perf_counter()
        answer = httpx.post(
            f"{server.url}/collections/c/points/query", headers={"api-key": READ_ONLY_KEY}, json={"query": [0.5] * SIZE}
        )
        times.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200
    return statistics.quantiles(times, n=20)[-1]


def test_300_slow_clients_leave_a_fast_one_unharmed_and_are_cut(server: Server) -> None:
    idle = min(p95_ms(server) for _ in range(2))
    with peak(server) as grown:
        clients, held = slow_clients(server)
        assert held > SLOW / 5
        stop = threading.Event()

        def dribble() -> None:
            while not stop.wait(1):
                for connection, dribbled in clients:
                    with suppress(OSError):
                        connection.send(dribbled)

        dribbler = threading.Thread(target=dribble, daemon=True)
        dribbler.start()
        deadline = time.monotonic() + DEADLINE_S
        try:
            ratios = [p95_ms(server) / idle]
            while connections(server) and time.monotonic() < deadline:
                ratios.append(p95_ms(server) / idle)
        finally:
            stop.set()
            dribbler.join()
        assert connections(server) == 0
        assert min(ratios) < 3
        assert grown() < 4 * BOUND_MIB * MIB
    for connection, _ in clients:
        connection.close()


def connections(server: Server) -> int:
    """How many the server holds. A client that does not read does not see the end of its own."""
    assert server.process is not None
    return len(psutil.Process(server.process.pid).net_connections("tcp")) - 1


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: h\r\n",
        head("GET", "/collections", None, Content_Length=5) + b"ab",
        head("POST", "/collections/c/points/query", READ_ONLY_KEY, Content_Length=500) + b"{",
    ],
    ids=["silent", "half a head", "half a body without a key", "half a body"],
)
def test_whoever_stops_in_the_middle_is_cut_off(server: Server, sent: bytes) -> None:
    with closing(connected(server)) as connection:
        connection.sendall(sent)
        wait_closed(connection)


def test_line_ends_between_requests_do_not_keep_a_connection(server: Server) -> None:
    with closing(connected(server)) as connection:
        connection.sendall(head("GET", "/healthz", None))
        assert b"200" in connection.recv(1 << 16)
        connection.sendall(b"\r\n\r\n")
        wait_closed(connection)


def wait_closed(connection: socket.socket) -> None:
    connection.settimeout(40)
    with suppress(ConnectionError):
        while connection.recv(1 << 16):
            pass


def test_a_client_without_a_key_that_goes_on_sending_is_cut_off(server: Server) -> None:
    with closing(connected(server)) as connection:
        connection.sendall(head("PUT", "/collections/c", None, Transfer_Encoding="chunked"))
        with pytest.raises(ConnectionError):
            send_on(connection, b"400\r\n" + b"x" * 1024 + b"\r\n")


def send_on(connection: socket.socket, chunk: bytes) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        connection.sendall(chunk)
        time.sleep(0.02)


def test_connections_without_a_key_do_not_keep_out_who_has_one(server: Server) -> None:
    strangers = []
    try:
        for _ in range(700):
            strangers.append(connected(server))
        answer = httpx.get(f"{server.url}/collections", headers={"api-key": KEY}, timeout=10)
        assert answer.status_code == 200
    finally:
        for stranger in strangers:
            stranger.close()


def test_many_who_come_at_once_with_a_key_are_all_served(server: Server) -> None:
    crowd = 300
    ready = threading.Barrier(crowd)

    def come(_: int) -> int:
        ready.wait(60)
        with closing(connected(server)) as connection:
            connection.sendall(head("GET", "/collections", KEY, Connection="close"))
            return int(answered(connection).split(b" ", 2)[1])

    with ThreadPoolExecutor(crowd) as pool:
        assert set(pool.map(come, range(crowd))) == {200}


@pytest.mark.parametrize(
    "endless",
    [
        (b"GET / HTTP/1.1\r\nX: ", b"x" * 4096),
        (b"GET /", b"x" * 4096),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 700),
        (head("POST", "/collections/c/points/count", Transfer_Encoding="chunked") + b"1;", b"x" * 4096),
        (head("POST", "/collections/c/points/count", Transfer_Encoding="chunked") + b"0\r\nX: ", b"x" * 4096),
        (b"", head("GET", "/healthz", None) * 40),
    ],
    ids=["header", "path", "headers", "chunk extension", "trailer", "pipeline"],
)
def test_what_has_no_end_is_not_hoarded(server: Server, endless: tuple[bytes, bytes]) -> None:
    with peak(server) as grown, closing(connected(server)) as connection:
        with suppress(ConnectionError, TimeoutError):
            connection.sendall(endless[0])
            connection.settimeout(5)
            for _ in range(16 * 1024):
                connection.sendall(endless[1])
        assert grown() < BOUND_MIB * MIB
        connection.settimeout(1)
        answered(connection)
    assert httpx.get(f"{server.url}/healthz").status_code == 200
