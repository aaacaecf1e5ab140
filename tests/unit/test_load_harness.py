"""The load harness itself, against servers that misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from plinth.load.dataset import Dataset
from plinth.load.fixture import gate_spec
from plinth.load.gate import Server, _locust, pooled
from plinth.load.slo import Profile, load_slo
from plinth.load.verdict import Operation
from plinth.qdrant.spec import load_specs
from tests.conftest import ROOT

SLO = load_slo(ROOT / "load" / "slo.yaml")
SMOKE = SLO.profile("smoke")
EMBEDDINGS = next(s for s in load_specs(ROOT / "config" / "collections") if "embeddings" in s.aliases)


@pytest.fixture
def stub() -> Iterator[Callable[[Callable[[int], tuple[int, str]]], str]]:
    """A server whose n-th answer a function gives, a status and the found point's tenant; returns its address."""
    servers: list[ThreadingHTTPServer] = []

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
                body = json.dumps({"result": {"points": [{"id": 1, "payload": {"org_id": tenant}}]}}).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Stub))
        servers[-1].daemon_threads = True
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
)


def load_against(url: str, **changes: object) -> tuple[Operation, dict[str, float]]:
    profile = Profile.model_validate(
        {**SMOKE.model_dump(), "rate_per_s": 60, "warmup_s": 0.5, "duration_s": 6, "mix": {"search": 1}, **changes}
    )
    result = _locust(Server(url, "k"), profile, gate_spec(EMBEDDINGS, DATA), DATA, ROOT / "load" / "locustfile.py", 0)
    return pooled([result])["search"], result


def test_a_known_delay_is_reported(stub: Callable[..., str]) -> None:
    def answer(number: int) -> tuple[int, str]:
        # One answer in ten takes 200 ms, so p50 is 40 and p95 is 200.
        time.sleep(0.2 if number % 10 == 0 else 0.04)
        return 200, "t"

    measured, result = load_against(stub(answer))
    assert measured.errors == 0
    assert result["achieved"] == result["planned"]
    assert measured.p50_ms == pytest.approx(40, rel=0.2)
    assert measured.p95_ms == pytest.approx(200, rel=0.1)


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
    assert measured.p95_ms > 500
    assert measured.p95_ms > 20 * measured.p50_ms


def test_failed_answers_and_strangers_points_are_errors(stub: Callable[..., str]) -> None:
    failing, _ = load_against(stub(lambda number: (503 if number % 4 == 0 else 200, "t")), duration_s=2)
    assert failing.errors > 0
    assert "503" in (failing.first_error or "")
    leaking, _ = load_against(stub(lambda _: (200, "another")), duration_s=2)
    assert leaking.count == 0
    assert "returned a point of another" in (leaking.first_error or "")
