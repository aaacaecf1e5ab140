"""`plinth load` from the command line, on the embedded engine: what a script reads of it, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from plinth.cli import app
from plinth.cli import load as command
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.load import gate
from plinth.paths import home
from plinth.qdrant.client import Qdrant
from plinth.settings.loader import load_settings
from tests.conftest import KEY, Server
from tests.project import Environment
from tests.slo import unhurried

TINY: dict[str, Any] = {
    "percentile": 95,
    "confidence": 0.5,
    "data": {"source": "generated", "points": 1000, "queries": 60, "dimensions": 32},
    "rate_per_s": 40,
    "warmup_s": 0.5,
    "duration_s": 3,
    "min_samples": 5,
    "mix": {"search": 3, "get": 1},
}


@pytest.fixture
def run(
    embedded: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Result, Server]]:
    """Runs `plinth load t` against a server of the test's own, with targets that any machine meets."""
    project, server = Environment(tmp_path / "p", {"plinth:target": "local"}), embedded()
    (project.root / "load" / "slo.yaml").write_text(unhurried({"tiny": TINY}))
    where = {"url": server.url, "grpc_url": f"http://127.0.0.1:{server.grpc_port}", "api_key": KEY}
    settings, place = load_settings(project.root, "t"), home(project.root, "t")
    stack = Stack("t", project.root, place, settings)
    monkeypatch.setattr(command, "stack_of", lambda _env: stack)
    monkeypatch.setattr(command, "outputs_of", lambda _stack: {"qdrant": where})

    def load(*arguments: str) -> tuple[Result, Server]:
        return CliRunner().invoke(app, ["load", "t", "--profile", "tiny", *arguments]), server

    load.server = server  # type: ignore[attr-defined]
    return load


def test_a_run_slower_than_its_baseline_fails_in_every_report(
    run: Callable[..., tuple[Result, Server]], tmp_path: Path
) -> None:
    then, now, junit, html = (tmp_path / name for name in ("then.json", "now.json", "now.xml", "now.html"))
    said, _ = run("--json", "--json-out", str(then))
    assert said.exit_code == 0, said.output
    # Standard output is JSON alone: progress goes beside it.
    assert json.loads(said.stdout) == json.loads(then.read_text())
    assert "Load: 40 requests/s" in said.stderr

    quicker = json.loads(then.read_text())
    for operation in quicker["operations"].values():
        operation |= {"p95_low_ms": 0.001, "p95_ms": 0.002, "p95_high_ms": 0.003}
    then.write_text(json.dumps(quicker))
    outs = ("--json-out", str(now), "--junit-out", str(junit), "--html-out", str(html))
    slower, _ = run("--baseline", str(then), *outs)
    assert slower.exit_code == 1, slower.output
    assert "Verdict: fail" in slower.stdout
    found = json.loads(now.read_text())
    assert found["verdict"] == "fail"
    assert "times the baseline's" in found["reasons"][0]
    assert int(ElementTree.parse(junit).getroot().get("failures") or 0) == 1
    assert '<span class="fail">' in html.read_text()


def test_a_server_that_dies_under_load_fails_and_leaves_its_report(
    run: Callable[..., tuple[Result, Server]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, server = run("--json")
    assert server.process is not None
    send, kill = gate.locust_runner.send, server.process.kill

    def and_die(*arguments: Any) -> Any:
        threading.Timer(4, kill).start()
        return send(*arguments)

    monkeypatch.setattr(gate.locust_runner, "send", and_die)
    monkeypatch.setitem(TINY, "duration_s", 10)
    path = tmp_path / "report.json"
    said, _ = run("--json-out", str(path))
    assert said.exit_code == 1, said.output
    found = json.loads(path.read_text())
    assert found["verdict"] == "fail"
    assert "failed; first:" in found["reasons"][0]

    with pytest.raises(UserError, match=r"No verdict: .*is it up") as nothing:
        run_raising(run)
    assert nothing.value.exit_code == 3


def run_raising(run: Callable[..., tuple[Result, Server]]) -> None:
    said, _ = run()
    assert said.exception
    raise said.exception


def collections(server: Server) -> list[str]:
    with Qdrant(server.url, KEY) as client:
        return client.collections()


def test_a_run_leaves_no_collection_unless_it_is_asked_to(run: Callable[..., tuple[Result, Server]]) -> None:
    said, server = run("--keep")
    assert said.exit_code == 0, said.output
    (kept,) = collections(server)
    assert f"{kept} is kept" in said.output
    said, server = run()
    assert said.exit_code == 0, said.output
    # What was kept is used again: nothing is loaded.
    assert "Loaded" not in said.output
    assert collections(server) == []


KILLED = """
import sys, time
from plinth.system.managed_process import terminable
from plinth.load.own_collection import own_collection
from plinth.qdrant.apply import converge
from plinth.qdrant.client import Qdrant
from plinth.qdrant.spec import CollectionSpec

spec = CollectionSpec.model_validate({"name": sys.argv[3], "vectors": {"size": 4, "distance": "Cosine"}})
with terminable(), Qdrant(*sys.argv[1:3]) as client, own_collection(client, spec, keep=False, say=print) as own:
    converge(client, own)
    print(own.name, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(("killed_by", "is_left"), [(signal.SIGKILL, True), (signal.SIGTERM, False)])
def test_what_a_killed_run_left_is_gone_after_the_next(
    run: Callable[..., tuple[Result, Server]], killed_by: int, is_left: bool
) -> None:
    server = run.server  # type: ignore[attr-defined]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, server.url, KEY, "plinth_load_0123"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert collections(server) == [name]
        process.send_signal(killed_by)
    assert collections(server) == ([name] if is_left else [])
    said, _ = run()
    assert said.exit_code == 0, said.output
    assert (f"Dropped {name}" in said.output) is is_left
    assert collections(server) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--html-out", "/no/such/place/x.html"], "--html-out /no/such/place/x.html cannot be written"),
        (["--against", "t", "--junit-out", "x.xml", "--json"], "leave --junit-out, --json out"),
        (["--against", "t", "--url", "http://x"], "leave --url out"),
    ],
)
def test_what_would_be_lost_is_refused_before_the_run(
    run: Callable[..., tuple[Result, Server]], arguments: list[str], words: str
) -> None:
    said, _ = run(*arguments)
    assert words in str(said.exception)
    assert isinstance(said.exception, UserError)
    assert said.exception.exit_code == 2
    assert "Loaded" not in said.output
