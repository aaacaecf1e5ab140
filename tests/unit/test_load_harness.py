"""The load harness itself, against servers that misbehave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest

from plinth.load import aggregation, locust_runner
from plinth.load.aggregation import Result
from plinth.load.dataset import Dataset
from plinth.load.locust_runner import Aim, Schedule, send
from plinth.load.verdict import Operation
from plinth.system.managed_process import terminable
from plinth.system.ports import free_port
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
LOCUSTFILE = ROOT / "load" / "locustfile.py"


class Server(ThreadingHTTPServer):
    """Lets as many wait to be accepted as real servers do; beyond the library's five they come a second later."""

    request_queue_size = 256
    daemon_threads = True


@pytest.fixture
def stub() -> Iterator[Callable[[Callable[[int], tuple[int, str]]], str]]:
    """A server whose n-th answer a function gives, a status and the found point's tenant; returns its address.

    Status 0 closes the connection without a word.
    """
    servers: list[Server] = []

    def start(answer: Callable[[int], tuple[int, str]]) -> str:
        lock, count = threading.Lock(), [0]

        class Stub(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                with lock:
                    count[0] += 1
                    number = count[0]
                status, tenant = answer(number)
                if status == 0:
                    self.close_connection = True
                    return
                body = json.dumps({"result": {"points": [{"id": 1, "payload": {"org_id": tenant}}]}}).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        servers.append(Server(("127.0.0.1", 0), Stub))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()


DATA = Dataset(
    "stub-0",
    np.eye(8, dtype=np.float32),
    ("t",) * 8,
    ("noun",) * 8,
    ("w",) * 8,
    np.eye(8, dtype=np.float32),
    ("t",) * 8,
    ("noun",) * 8,
    ("w",) * 8,
)


def load_against(url: str, **changes: object) -> tuple[Operation, list[Result]]:
    schedule = Schedule(**{"rate_per_s": 60, "warmup_s": 0.5, "duration_s": 6, "mix": {"search": 1}, **changes})  # type: ignore[arg-type]
    found = send(Aim("rest", url, "k", "c", {}), schedule, DATA, LOCUSTFILE)
    return aggregation.operation(aggregation.times([found])["search"], aggregation.elapsed([found]), 0.95), found


def test_a_known_delay_is_reported_within_five_percent(stub: Callable[..., str]) -> None:
    told: list[float] = []

    def answer(number: int) -> tuple[int, str]:
        # One answer in ten takes 400 ms and one in fifty 800; what a sleep really took is what is told.
        wanted = 0.8 if number % 50 == 0 else 0.4 if number % 10 == 0 else 0.04
        began = time.perf_counter()
        time.sleep(wanted)
        told.append((time.perf_counter() - began) * 1000)
        return 200, "t"

    measured, found = load_against(stub(answer), duration_s=10)
    assert measured.errors == 0
    assert aggregation.generator([found]).achieved == aggregation.generator([found]).planned
    cuts = statistics.quantiles(told, n=100)
    assert measured.p50_ms == pytest.approx(cuts[49], rel=0.2)
    assert measured.p95.value == pytest.approx(cuts[94], rel=0.05)
    assert measured.p99.value == pytest.approx(cuts[98], rel=0.05)
    assert measured.p95.low <= 400 * 1.05
    # Little's law holds between two figures that are counted apart.
    assert aggregation.generator([found]).in_flight == pytest.approx(
        measured.rps * measured.service_mean_ms / 1000, rel=0.3
    )


def test_a_stall_is_charged_to_all_who_would_have_come_meanwhile(stub: Callable[..., str]) -> None:
    began: list[float] = []

    def answer(_: int) -> tuple[int, str]:
        began.append(time.monotonic())
        # From the third second on nobody is answered for two.
        since = began[-1] - began[0]
        if 3 < since < 5:
            time.sleep(5 - since)
        return 200, "t"

    measured, _ = load_against(stub(answer))
    # A third of the run stalls: a closed loop of one client would have had one slow answer among hundreds.
    assert measured.p95.low > 500
    assert measured.p95.value > 20 * measured.p50_ms


def test_failed_answers_and_strangers_points_are_errors(stub: Callable[..., str]) -> None:
    failing, _ = load_against(stub(lambda number: (503 if number % 4 == 0 else 200, "t")), duration_s=2)
    assert failing.errors > 0
    assert "503" in (failing.first_error or "")
    leaking, _ = load_against(stub(lambda _: (200, "another")), duration_s=2)
    assert leaking.count == 0
    assert "returned a point of another" in (leaking.first_error or "")


def test_a_connection_that_closes_under_a_request_is_no_error_and_one_in_fifty_is(stub: Callable[..., str]) -> None:
    # Qdrant closes what idles for 5 seconds, and a request may be on its way then.
    once, _ = load_against(stub(lambda number: (0 if number == 90 else 200, "t")), duration_s=2)
    assert once.errors == 0
    assert once.count > 0
    dropping, _ = load_against(stub(lambda number: (0 if number % 50 == 0 else 200, "t")), duration_s=4)
    assert dropping.errors > 0
    assert "the connection was closed" in (dropping.first_error or "")


@pytest.mark.parametrize(
    ("sent", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["Ctrl-C", "TERM"]
)
def test_a_run_that_is_interrupted_leaves_the_server_alone(
    stub: Callable[..., str], sent: signal.Signals, raised: type[BaseException]
) -> None:
    def interrupt(number: int) -> tuple[int, str]:
        if number == 1:
            os.kill(os.getpid(), sent)
        return 200, "t"

    before = generators()
    # What a script starts in the background is deaf to Ctrl-C, these tests too.
    deaf = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with terminable(), pytest.raises(raised):
            load_against(stub(interrupt), duration_s=60)
    finally:
        signal.signal(signal.SIGINT, deaf)
    assert generators() <= before


def stand_still(before: set[int], seconds: float) -> None:
    """Stop the generators that are not among those ``before`` for some seconds; returns at once."""

    def freeze() -> None:
        ours = [psutil.Process(pid) for pid in generators() - before]
        for process in ours:
            process.suspend()
        time.sleep(seconds)
        for process in ours:
            process.resume()

    threading.Thread(target=freeze, daemon=True).start()


def test_a_generator_that_stood_still_is_late_and_charges_the_server_with_no_error(stub: Callable[..., str]) -> None:
    before = generators()

    def answer(number: int) -> tuple[int, str]:
        if number == 100:
            stand_still(before, seconds=4)
        if number > 100:
            time.sleep(0.5)
        return 200, "t"

    # Twice as many come meanwhile as may be in flight at once, and this server takes half a second for each.
    measured, found = load_against(stub(answer), rate_per_s=100, duration_s=8)
    health = aggregation.generator([found])
    assert (measured.errors, measured.first_error) == (0, None)
    # What found no place is missing among the sent, and the lateness is in the planned time, not in the server's.
    assert 200 < health.achieved < health.planned
    assert min(health.lag_p95_ms, measured.p95.value) > 2 * measured.service_p95_ms


def test_what_finds_no_place_long_after_is_the_servers_error(stub: Callable[..., str]) -> None:
    before = generators()

    def answer(number: int) -> tuple[int, str]:
        if number == 20:
            stand_still(before, seconds=0.5)
        time.sleep(5)
        return 200, "t"

    measured, found = load_against(stub(answer), warmup_s=0, rate_per_s=100, duration_s=5)
    health = aggregation.generator([found])
    assert measured.errors == health.planned - health.achieved > 100
    assert "200 requests waited" in (measured.first_error or "")


def generators() -> set[int]:
    """The load generators of this process that run."""
    return {child.pid for child in psutil.Process().children(recursive=True) if "locust" in " ".join(child.cmdline())}


def test_two_workers_share_the_rate_and_what_they_saw_adds_up(stub: Callable[..., str]) -> None:
    measured, found = load_against(stub(lambda _: (200, "t")), rate_per_s=100, duration_s=5, processes=2)
    health = aggregation.generator([found])
    assert (len(found), health.processes) == (2, 2)
    assert health.planned == pytest.approx(500, rel=0.25)
    assert measured.count == health.achieved == health.planned
    # Neither sends what the other sends.
    shares = [worker["planned"] for worker in found]
    assert min(shares) > 0.3 * sum(shares)


def test_workers_of_other_machines_find_the_job_where_it_is_handed_out(
    stub: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, started, port = tmp_path / "shared", [], free_port()
    monkeypatch.setattr(locust_runner, "MASTER_PORT", port)
    shared.mkdir()
    data = replace(DATA, query_parts=("verb",) * 8)

    def when_handed_out() -> None:
        while not (shared / "job.json").exists():
            time.sleep(0.05)
        time.sleep(1)
        for number in range(2):
            # Another directory with a copy of the job, as on another machine.
            own = tmp_path / f"machine{number}"
            own.mkdir()
            for name in ("job.json", "data.npz"):
                shutil.copy(shared / name, own)
            command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--worker"]
            command += ["--master-host", "127.0.0.1", "--master-port", str(port)]
            job = {"PLINTH_LOAD_JOB": str(own / "job.json")}
            with (own / "log").open("wb") as log:
                started.append(subprocess.Popen(command, cwd=own, env={**os.environ, **job}, stdout=log, stderr=log))

    threading.Thread(target=when_handed_out, daemon=True).start()
    schedule = Schedule(60, 0.5, 4, {"search": 1}, processes=2)
    found = send(Aim("rest", stub(lambda _: (200, "t")), "k", "c", {}), schedule, data, LOCUSTFILE, shared)
    assert len(found) == 2
    assert sum(worker["sent"] for worker in found) == sum(worker["planned"] for worker in found) > 100
    assert list(shared.iterdir()) == [], "the job has the server's key in it"
    assert [worker.wait(30) for worker in started] == [0, 0]


def test_more_workers_than_cores_can_send_no_more() -> None:
    def worker(host: str) -> Result:
        sent = {"planned": 100, "sent": 100, "elapsed_s": 10.0, "lag_p95_ms": 1.0, "cpu_s": 0.1, "in_flight_mean": 0.1}
        return {**sent, "host": host, "cores": 2, "recall": {}, "operations": {}}

    # 1 ms of a core a request.
    assert aggregation.generator([[worker("a")]]).ceiling_per_s == pytest.approx(1000)
    assert aggregation.generator([[worker("a")] * 8]).ceiling_per_s == pytest.approx(2000)
    assert aggregation.generator([[worker("a"), *[worker("b")] * 3]]).ceiling_per_s == pytest.approx(3000)


def test_the_ceiling_is_what_the_generator_can_send(stub: Callable[..., str]) -> None:
    url = stub(lambda _: (200, "t"))
    _, found = load_against(url, rate_per_s=40, duration_s=5)
    health = aggregation.generator([found])
    assert health.headroom > 3
    # At three times the rate all is still sent, as a headroom of three promises.
    _, tripled = load_against(url, rate_per_s=120, duration_s=5)
    more = aggregation.generator([tripled])
    assert more.achieved == more.planned
    assert more.rate_per_s > 2 * health.rate_per_s
