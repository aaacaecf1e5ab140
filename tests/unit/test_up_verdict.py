"""How `plinth up` ends where everything is deployed and ready: by what the load gate came to."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, get_args

import pytest

from plinth.cli import stack as commands
from plinth.cli import status
from plinth.errors import UserError
from plinth.health.probes import Probe
from plinth.health.status import Dependency, Result, Status
from plinth.load.verdict import Verdict, Word
from plinth.paths import Home, home
from plinth.settings import Settings
from plinth.settings.loader import load_settings
from tests.answers import Answers, close, serve
from tests.conftest import ROOT

REASONS = ("the generator was 4 ms late", "12 samples are too few")


class Report:
    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


class Deployed:
    """A stack whose services all answer."""

    home: Home
    settings: Settings
    env, root = "t", ROOT

    def masked_outputs(self) -> dict[str, Any]:
        return {"qdrant": {"url": "http://127.0.0.1:6333"}}


def verified(monkeypatch: pytest.MonkeyPatch, word: Word, *, ready: bool = True) -> None:
    from plinth.cli import load

    monkeypatch.setattr(status, "show", lambda *_: ready)
    monkeypatch.setattr(load, "measure", lambda *_: Report(Verdict(word, REASONS if word != "pass" else ())))
    monkeypatch.setattr(load, "show", lambda _: None)
    commands._verify("t", Deployed(), {})  # type: ignore[arg-type]


def test_every_verdict_is_in_the_tests() -> None:
    assert set(get_args(Word)) == {"pass", "void", "fail"}


def test_a_gate_without_a_verdict_is_a_warning_that_comes_last_and_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verified(monkeypatch, "void")
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("Warning: 't' is deployed and ready")
    for reason in REASONS:
        assert reason in last
    assert last.endswith("Run `plinth load t --profile smoke` when this machine is quiet.")


def test_a_missed_target_is_1_with_its_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="misses a target of the load gate: the generator was 4 ms late") as failed:
        verified(monkeypatch, "fail")
    assert failed.value.exit_code == 1


def test_a_pass_ends_with_what_to_do_next(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    verified(monkeypatch, "pass")
    printed = capsys.readouterr().out
    assert "Warning" not in printed
    assert "plinth down t" in printed.strip().splitlines()[-1]


def test_what_is_not_ready_is_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="deployed and not ready") as failed:
        verified(monkeypatch, "void", ready=False)
    assert failed.value.exit_code == 1


def test_the_gate_alone_keeps_its_exit_codes() -> None:
    assert {word: Verdict(word, ()).exit_code for word in get_args(Word)} == {"pass": 0, "fail": 1, "void": 3}


@pytest.mark.parametrize(("late", "ready"), [(0, True), (2, True), (99, False)])
def test_what_answers_late_on_a_busy_machine_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], late: int, ready: bool
) -> None:
    """Each service has just passed its gate: `up` came to "not ready" where a probe alone was late."""
    asked: list[Status] = []

    def probe(*_: object, cache: bool, patient: bool) -> Status:
        assert (cache, patient) == (False, True)
        asked.append(Status("plinth/t", {"redis": Result(enabled=True, ok=len(asked) >= late, skipped=False)}))
        return asked[-1]

    monkeypatch.setattr(status, "probe", probe)
    monkeypatch.setattr(status, "backup_status", lambda *_: None)
    monkeypatch.setattr(status, "PAUSE_S", 0)
    monkeypatch.setattr(status, "PATIENCE_S", 60 if ready else 0)
    assert status.show(Deployed(), {}) is ready  # type: ignore[arg-type]
    assert len(asked) == (late + 1 if ready else 1)
    assert ("NOT ready" in capsys.readouterr().out) is not ready


def test_what_answers_slowly_is_ready_to_an_up_and_not_to_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`status` keeps the time that it documents; an `up` on a busy machine asks whether it serves."""
    ended = threading.Event()

    class Slow(Answers):
        def do_GET(self) -> None:
            ended.wait(0.5)
            self.reply(200)

    server = serve(Slow)
    slow = Dependency("exporter", Probe("http", "127.0.0.1", server.server_port, "/metrics"))
    stack = Deployed()
    stack.home, stack.settings = home(tmp_path, "t"), load_settings(ROOT, "local")
    monkeypatch.delenv("PROBE_TIMEOUT_MS", raising=False)
    monkeypatch.setattr(status, "dependencies", lambda _: [slow])
    monkeypatch.setattr(status, "backup_status", lambda *_: None)
    try:
        assert not status.probe(stack, {}, cache=False).ready  # type: ignore[arg-type]
        assert status.show(stack, {})  # type: ignore[arg-type]
    finally:
        ended.set()
        close(server)
