"""The small HTTP servers: slow clients are ended by those who come after, and nobody who is quick waits for them."""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge

from plinth.grafana_snapshot import server as lend
from plinth.system.bounded_server import STRANGERS_MAX, serve_metrics

SLOW = 300
PASSWORD = "of the copy"


@contextmanager
def metrics(_: Path) -> Iterator[str]:
    registry = CollectorRegistry()
    Gauge("held", "Here.", registry=registry).set(1)
    server = serve_metrics("127.0.0.1", 0, registry)
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()


@contextmanager
def lender(directory: Path) -> Iterator[str]:
    database = directory / "grafana.db"
    with closing(sqlite3.connect(database)) as made:
        made.execute("CREATE TABLE t (x)")
    (directory / "copies").mkdir()
    server = lend.Lender(("127.0.0.1", 0), database, PASSWORD, directory / "copies")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{lend.PATH}"
    server.shutdown()
    server.server_close()


SERVERS = [metrics, lender]


def served(url: str) -> int:
    return httpx.get(url, headers={"Authorization": f"Bearer {PASSWORD}"}, timeout=20).status_code


OWN = ["127.0.0.1", "127.0.0.1:9188", "[::1]:9188", "localhost", "plinth-dev-plinth-exporter:9188", "m.plinth.svc"]
OTHERS = ["evil.example", "evil.example:9188", "a.b.svc.evil.example", "127.0.0.1.evil.example", "[", "a.svc@b.c"]


@pytest.mark.parametrize(("host", "status"), [*((host, 200) for host in OWN), *((host, 421) for host in OTHERS)])
def test_a_page_in_a_browser_that_calls_this_machine_by_its_own_name_gets_nothing(
    tmp_path: Path, host: str, status: int
) -> None:
    with metrics(tmp_path) as url:
        answer = httpx.get(url, params={"target": "http://127.0.0.1:1"}, headers={"Host": host}, timeout=20)
    assert answer.status_code == status
    assert ("held 1" in answer.text) is (status == 200)


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\nX-", b"GET / HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("server", SERVERS)
def test_slow_clients_keep_nobody_waiting_and_hold_few_threads(
    tmp_path: Path, server: Callable[[Path], Iterator[str]], sent: bytes
) -> None:
    with server(tmp_path) as url:  # type: ignore[attr-defined]
        before = threading.active_count()
        slow = []
        try:
            for number in range(SLOW):
                connection = socket.create_connection(("127.0.0.1", httpx.URL(url).port), timeout=20)
                connection.sendall(sent)
                slow.append(connection)
                if number % 50 == 0:
                    assert served(url) == 200
            assert served(url) == 200
            assert threading.active_count() - before <= STRANGERS_MAX + 2
            # The first of them were ended.
            slow[0].settimeout(20)
            assert ended(slow[0])
        finally:
            for connection in slow:
                connection.close()


def ended(connection: socket.socket) -> bool:
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


def test_a_copy_under_way_is_not_ended_by_who_comes_without_the_password(tmp_path: Path) -> None:
    with lender(tmp_path) as url:
        with closing(sqlite3.connect(tmp_path / "grafana.db")) as database:
            database.execute("INSERT INTO t VALUES (zeroblob(30000000))")
            database.commit()
        with httpx.stream("GET", url, headers={"Authorization": f"Bearer {PASSWORD}"}, timeout=20) as answer:
            strangers = [socket.create_connection(("127.0.0.1", httpx.URL(url).port)) for _ in range(SLOW)]
            size = sum(len(part) for part in answer.iter_bytes())
        assert size == int(answer.headers["content-length"]) > 30_000_000
        for stranger in strangers:
            stranger.close()
