"""Status: S0-03's semantics against servers that hang, refuse, flap or deny."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.backup.freshness import BackupStatus
from plinth.cli.backup_status import with_backups
from plinth.errors import UserError
from plinth.health.probes import Probe
from plinth.health.status import Dependency, Policy, Result, Status, check, dependencies, remembered
from plinth.status_files.backup_runs import State
from tests.conftest import free_port

pytestmark = pytest.mark.requirement("S0-03")


@pytest.fixture
def answering() -> Iterator[Callable[[Callable[[int], int]], tuple[int, list[str]]]]:
    """Start an HTTP server whose n-th answer has the status that a function gives; returns its port and what it saw."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: Callable[[int], int]) -> tuple[int, list[str]]:
        seen: list[str] = []

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.headers.get("api-key") or "")
                self.send_response(status(len(seen)))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].server_address[1], seen

    yield start
    for server in servers:
        server.shutdown()


def http(name: str, port: int, secret: str | None = None) -> Dependency:
    return Dependency(name, Probe("http", "127.0.0.1", port, "/"), secret)


def test_a_server_that_answers_is_ok_with_its_latency(answering: Callable) -> None:
    port, seen = answering(lambda _: 200)
    found = check("plinth/x", [http("qdrant", port, "the-key")], Policy())
    assert found.ready
    assert found.summary == "ok"
    assert found.deps["qdrant"].latency_ms is not None
    assert seen == ["the-key"]


def test_one_that_flaps_is_asked_again_and_no_more_than_the_retries(answering: Callable) -> None:
    port, seen = answering(lambda attempt: 200 if attempt == 3 else 503)
    assert check("x", [http("q", port)], Policy(retries=2)).ready
    assert len(seen) == 3
    port, seen = answering(lambda attempt: 200 if attempt == 3 else 503)
    assert not check("x", [http("q", port)], Policy(retries=1)).ready
    assert len(seen) == 2


def test_one_that_refuses_or_denies_is_named_without_the_key(answering: Callable) -> None:
    port, _ = answering(lambda _: 401)
    found = check("x", [http("q", port, "the-key"), http("gone", free_port())], Policy())
    assert not found.ready
    assert "answered 401" in found.summary
    assert "gone" in found.summary
    assert "the-key" not in str(found.to_json())


def test_those_that_hang_cost_their_time_limit_once_and_not_each() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        hanging = [http(f"d{number}", silent.getsockname()[1]) for number in range(8)]
        policy = Policy(timeout_ms=200, retries=1)
        began = time.monotonic()
        found = check("x", hanging, policy)
        elapsed = time.monotonic() - began
    assert not any(result.ok for result in found.deps.values())
    one_after_another = len(hanging) * (policy.retries + 1) * policy.timeout_ms / 1000
    assert elapsed < one_after_another / 2


KINDS = ("http", "postgres", "redis", "neo4j")


def probes(host: str, port: int) -> list[Dependency]:
    """One of every kind, plain and by TLS where there is both."""
    plain = [Dependency(kind, Probe(kind, host, port), "secret") for kind in KINDS]  # type: ignore[arg-type]
    return [*plain, *(Dependency(f"{k}s", Probe(k, host, port, tls=True), "s") for k in ("http", "redis"))]  # type: ignore[arg-type]


@pytest.mark.parametrize("death", ["silent", "refusing", "a name server that hangs"])
def test_whatever_is_dead_costs_no_more_than_all_its_attempts(death: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """F9: redis-py tried again by itself, ten times with pauses; libpq waits two seconds at least."""
    policy = Policy(timeout_ms=250, retries=1)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        port = server.getsockname()[1]
        host = "127.0.0.1"
        if death == "refusing":
            server.close()
        if death == "a name server that hangs":
            host = "store.test"
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(30))
        asked = probes(host, port)
        for dependency in asked:
            assert dependency.probe is not None
            dependency.probe.load_client()
        began = time.monotonic()
        found = check("x", asked, policy)
        elapsed = time.monotonic() - began
    assert [name for name, result in found.deps.items() if result.ok] == []
    assert all(result.detail for result in found.deps.values())
    assert elapsed < 4 * policy.patience_s, found.summary


def test_redis_is_asked_as_often_as_the_policy_says_and_no_more() -> None:
    connections = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            nonlocal connections
            with suppress(OSError):
                while True:
                    server.accept()[0].close()
                    connections += 1

        threading.Thread(target=hang_up, daemon=True).start()
        port = server.getsockname()[1]
        check("x", [Dependency("redis", Probe("redis", "127.0.0.1", port), "s")], Policy(timeout_ms=2000, retries=2))
    assert connections == 3


def test_what_asks_is_imported_before_the_latency_is_taken() -> None:
    script = (
        "import sys\nfrom plinth.health.probes import Probe\nassert not {'redis', 'psycopg'} & set(sys.modules)\n"
        "for kind in ('redis', 'postgres', 'http'): Probe(kind, 'h', 1).load_client()\n"
        "assert {'redis', 'psycopg'} <= set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_result_is_remembered_for_its_time_and_for_its_dependencies(tmp_path: Path) -> None:
    asked = []

    def ask() -> Status:
        asked.append(1)
        return Status("x", {"q": Result(enabled=True, ok=True, skipped=False, latency_ms=1.0)})

    path, policy = tmp_path / "status.json", Policy(cache_sec=10)
    first = remembered(path, policy, ["q"], ask, now=100)
    assert remembered(path, policy, ["q"], ask, now=109) == first
    assert len(asked) == 1
    remembered(path, policy, ["q"], ask, now=111)
    assert len(asked) == 2
    remembered(path, policy, ["q", "r"], ask, now=112)
    assert len(asked) == 3
    path.write_text("not json")
    remembered(path, policy, ["q"], ask, now=113)
    assert len(asked) == 4


@pytest.mark.requirement("S1-05")
def test_grafana_is_asked_for_its_health_and_shown_by_its_overview() -> None:
    where = {"url": "http://127.0.0.1:3000", "dashboard": "http://127.0.0.1:3000/d/plinth-overview"}
    outputs = {"qdrant": {"url": "http://127.0.0.1:6333", "api_key": None}, "grafana": where}
    (found,) = [known for known in dependencies(outputs, {}) if known.name == "grafana"]
    assert found.url == where["dashboard"]
    assert found.probe == Probe("http", "127.0.0.1", 3000, "/api/health")


def test_what_is_left_out_or_switched_off_is_skipped_and_does_not_decide() -> None:
    outputs = {
        "qdrant": {"url": "http://127.0.0.1:1", "api_key": "k"},
        "left_out": {"grafana": "no grafana binary"},
    }
    wanted = dependencies(outputs, {"ENABLE_QDRANT": "false"})
    found = check("x", wanted, Policy()).to_json()
    assert found["deps"]["qdrant"] == {
        "enabled": False,
        "ok": None,
        "skipped": True,
        "latency_ms": None,
        "detail": "ENABLE_QDRANT is false",
    }
    assert found["deps"]["grafana"]["detail"] == "no grafana binary"
    assert found["ready"] is False


results = st.builds(
    Result, enabled=st.booleans(), ok=st.sampled_from([True, False, None]), skipped=st.booleans(), detail=st.just("why")
)


@given(st.dictionaries(st.text("abc", min_size=1), results))
def test_ready_means_that_something_was_asked_and_all_of_it_is_well(deps: dict[str, Result]) -> None:
    asked = [result for result in deps.values() if not result.skipped]
    status = Status("x", deps)
    assert status.ready == (bool(asked) and all(result.ok for result in asked))
    assert (status.summary == "ok") == status.ready


def test_a_policy_that_is_no_number_is_named() -> None:
    with pytest.raises(UserError, match="PROBE_RETRIES is 'two'"):
        Policy.from_environment({"PROBE_RETRIES": "two"})


@pytest.mark.parametrize(
    ("deps", "problem", "ready"),
    [
        ({}, None, True),
        ({}, "the last good backup is 3.0 d old", False),
        ({"backup": Result(True, True, False)}, None, True),
        ({"backup": Result(True, True, False)}, "the last good backup is 3.0 d old", False),
        # One that is down is told as that, whatever it left behind.
        ({"backup": Result(True, False, False, detail="refused")}, None, False),
        ({"backup": Result(True, False, False, detail="refused")}, "the last good backup is 3.0 d old", False),
        ({"backup": Result(False, None, True)}, "the last good backup is 3.0 d old", True),
    ],
)
def test_backups_that_are_down_or_too_old_are_not_ready(
    deps: dict[str, Result], problem: str | None, ready: bool
) -> None:
    known = Status("t", {"qdrant": Result(True, True, False), **deps})
    found = with_backups(known, BackupStatus(State(), problem))
    assert found.ready is ready
    told = deps.get("backup", Result(True, True, False))
    assert found.deps["backup"].detail == (problem if told.ok and problem else told.detail)
    assert with_backups(known, None) == known


def test_the_backups_own_page_is_asked() -> None:
    outputs = {
        "qdrant": {"url": "http://q:1", "api_key": None},
        "backup": {"metrics_url": "http://127.0.0.1:9189/metrics"},
    }
    (asked,) = [known for known in dependencies(outputs, {}) if known.name == "backup"]
    assert asked.probe == Probe("http", "127.0.0.1", 9189, "/metrics")
    assert "backup" not in {known.name for known in dependencies({**outputs, "backup": {}}, {})}
