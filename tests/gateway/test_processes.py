"""A gateway of several processes: one address, one page of metrics, one end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from plinth.gateway.metrics_page import merged
from plinth.system.ports import free_port
from tests.gateway.conftest import METRICS_TOKEN, Gateway, login

PROCESSES = 2


@pytest.fixture(scope="module")
def several(make_gateway: Callable[..., Gateway]) -> Iterator[Gateway]:
    listen = {"host": "127.0.0.1", "http_port": free_port(), "grpc_port": free_port(), "processes": PROCESSES}
    running = make_gateway(listen=listen)
    running.start()
    yield running
    children = servers(running)
    assert running.stop() == 0
    psutil.wait_procs(children, timeout=60)
    assert not any(child.is_running() for child in children)


def servers(gateway: Gateway) -> list[psutil.Process]:
    assert gateway.process is not None
    return psutil.Process(gateway.process.pid).children()


def counted(gateway: Gateway) -> float:
    page = httpx.get(f"{gateway.url}/metrics", headers={"authorization": f"Bearer {METRICS_TOKEN}"})
    return sum(
        sample.value
        for family in text_string_to_metric_families(page.raise_for_status().text)
        for sample in family.samples
        if sample.name == "plinth_gateway_http_requests_total" and sample.labels["route"] == "/v1/collections"
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def both_listen(gateway: Gateway) -> bool:
    ports = [gateway.config["listen"][name] for name in ("http_port", "grpc_port")]
    listening = [
        {connection.laddr.port for connection in server.net_connections("tcp") if connection.status == "LISTEN"}
        for server in servers(gateway)
    ]
    return len(listening) == PROCESSES and all(set(ports) <= each for each in listening)


def test_all_serve_on_one_address_and_their_requests_are_counted_together(several: Gateway) -> None:
    wait_for(lambda: both_listen(several))

    def ask(_: int) -> int:
        # A connection of its own each time, so that the kernel chooses again.
        return httpx.get(f"{several.url}/v1/collections", headers=login("many"), timeout=30).status_code

    with ThreadPoolExecutor(8) as callers:
        assert list(callers.map(ask, range(60))) == [200] * 60
    # Whichever is asked, and however often.
    assert [counted(several) for _ in range(6)] == [60] * 6
    for _ in range(6):
        with grpc.insecure_channel(several.grpc_address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=30).status == 1


def test_a_second_gateway_on_its_ports_is_refused(several: Gateway, make_gateway: Callable[..., Gateway]) -> None:
    other = make_gateway(listen=several.config["listen"])
    # The first answers for it, until it has ended.
    with suppress(AssertionError):
        other.start()
    assert other.process is not None
    assert other.process.wait(60) != 0
    assert "cannot be listened on" in other.log()


@pytest.mark.parametrize("ended", ["one is killed", "the parent is killed"])
def test_they_end_together(make_gateway: Callable[..., Gateway], ended: str) -> None:
    listen = {"host": "127.0.0.1", "http_port": free_port(), "grpc_port": free_port(), "processes": PROCESSES}
    gateway = make_gateway(listen=listen)
    gateway.start()
    wait_for(lambda: both_listen(gateway))
    children = servers(gateway)
    assert gateway.process is not None
    if ended == "one is killed":
        os.kill(children[1].pid, signal.SIGKILL)
        assert gateway.process.wait(60) == 1
    else:
        gateway.stop(signal.SIGKILL)
    psutil.wait_procs(children, timeout=60)
    assert not any(child.is_running() for child in children)


def test_a_sum_is_of_what_adds_up() -> None:
    page = """# HELP a_total of
# TYPE a_total counter
a_total{x="1"} %d
# HELP a_created of
# TYPE a_created gauge
a_created{x="1"} %d
# HELP process_max_fds of
# TYPE process_max_fds gauge
process_max_fds 5
# HELP d_seconds of
# TYPE d_seconds histogram
d_seconds_bucket{le="1.0"} 2
d_seconds_bucket{le="+Inf"} 3
d_seconds_count 3
d_seconds_sum 4.5
"""
    text = merged([page % (1, 200), page % (2, 100)]).decode()
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples == {
        ("a_total", None): 3,
        ("a_created", None): 100,
        ("process_max_fds", None): 5,
        ("d_seconds_bucket", "1.0"): 4,
        ("d_seconds_bucket", "+Inf"): 6,
        ("d_seconds_count", None): 6,
        ("d_seconds_sum", None): 9,
    }
