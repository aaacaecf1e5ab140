"""A real Loki answers who has a certificate, at each of its ports, and its parts find each other all the same."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import psutil
import pytest

from plinth.services import mutual_tls
from plinth.system.tls import trusting
from tests.standing import Stack, ports
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(
    not (os.environ.get("PLINTH_LOKI") or shutil.which("loki")),
    reason="no loki binary: set PLINTH_LOKI or put it on PATH",
)
PUSH, QUERY = "/loki/api/v1/push", "/loki/api/v1/query_range"
PATHS = [
    *("/", "/metrics", "/ready", "/config", "/services", "/flush", "/ring", "/log_level", "/debug/pprof/", PUSH, QUERY),
    *("/loki/api/v1/delete", "/loki/api/v1/labels", "/loki/api/v1/tail", "/ingester/shutdown"),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Loki alone."""
    loki = {"loki": {"enabled": True, **ports("port", "agent_port")}}
    made = Stack(tmp_path_factory.mktemp("stack"), {}, monitoring=loki)
    with made.running("loki") as process:
        made.pid = process.pid

        def answers() -> bool:
            assert process.poll() is None, made.log("loki")
            with suppress(httpx.TransportError):
                return made.get("loki", "/ready", "plinth").is_success
            return False

        wait_for(answers, lambda: made.log("loki"), seconds=90)
        yield made


def test_lines_are_taken_and_found_with_a_certificate(stack: Stack) -> None:
    line = [str(time.time_ns()), "a line of its own"]
    streams = {"streams": [{"stream": {"service": "s"}, "values": [line]}]}
    with stack.client("loki", "fluent-bit") as agent:
        assert agent.post(PUSH, json=streams).status_code == 204
    with stack.client("loki", "grafana") as grafana:
        wait_for(lambda: "a line of its own" in grafana.get(QUERY, params={"query": '{service="s"}'}).text, seconds=30)
        assert "s" in grafana.get("/loki/api/v1/label/service/values").text


def test_nobody_deletes_and_prometheus_reads_the_page(stack: Stack) -> None:
    with stack.client("loki", "prometheus") as prometheus:
        assert "loki_build_info" in prometheus.get("/metrics").text
        answer = prometheus.post("/loki/api/v1/delete", params={"query": '{service="s"}', "start": "1"})
        assert answer.status_code >= 400, answer.text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_without_a_certificate_nothing_is_answered(stack: Stack, scheme: str, method: str, path: str) -> None:
    with httpx.Client(verify=False, trust_env=False) as anybody:
        try:
            answer = anybody.request(method, f"{scheme}://{stack.address('loki', 'http')}{path}")
        except httpx.TransportError:
            return
        assert (answer.status_code, answer.text) == (400, "Client sent an HTTP request to an HTTPS server.\n")


def test_every_port_that_it_listens_on_asks_for_a_certificate(stack: Stack) -> None:
    connections = psutil.Process(stack.pid).net_connections("tcp")
    listening = {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert len(listening) >= 2, "HTTP and gRPC"
    for port in listening:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            first_answer(port, stack.secrets[mutual_tls.CA])


def first_answer(port: int, ca_cert: str) -> bytes:
    """What a server says to an HTTP/2 client without a certificate: in TLS 1.3 its refusal comes here."""
    context = trusting(ca_cert)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        if not (answer := secured.recv(1)):
            raise ConnectionError("closed")
        return answer
