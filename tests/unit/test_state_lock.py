"""Locks of the state: which are dead, which are alive, and what a person is told of the rest."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from plinth.cli import app
from plinth.deployment.state_lock import Lock, held_by_others, locks, release_dead, started_at
from plinth.paths import home
from tests.conftest import ROOT

HERE = socket.gethostname()
NOW = time.time()


def put(backend: Path, content: str | dict[str, Any], env: str = "t", name: str = "a") -> Path:
    path = backend / ".pulumi" / "locks" / "organization" / "plinth" / env / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def lock(pid: int, host: str = HERE, at: float = NOW) -> dict[str, Any]:
    return {"pid": pid, "hostname": host, "username": "ann", "timestamp": datetime.fromtimestamp(at, UTC).isoformat()}


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


def test_one_of_a_process_that_is_gone_is_released(tmp_path: Path, dead: int) -> None:
    path = put(tmp_path, lock(dead))
    assert [each.pid for each in release_dead(tmp_path, "t")] == [dead]
    assert not path.exists()


def test_one_whose_number_another_process_has_by_now_is_released(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    """F16: the process is younger than the lock."""
    began = psutil.Process(sleeper.pid).create_time()
    path = put(tmp_path, lock(sleeper.pid, at=began - 60))
    assert release_dead(tmp_path, "t")
    assert not path.exists()


def test_one_of_a_process_that_lives_is_left(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    path = put(tmp_path, lock(sleeper.pid, at=psutil.Process(sleeper.pid).create_time() + 0.5))
    assert release_dead(tmp_path, "t") == []
    assert path.exists()


def test_a_zombie_holds_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert started_at(process.pid) is None
    finally:
        process.wait()


OTHERS: dict[str, str | dict[str, Any]] = {
    "another machine's": lock(1, host="laptop.of.somebody"),
    "empty": "",
    "cut off": '{"pid": 12',
    "zeros": "\0\0\0\0",
    "of another shape": "[1]",
    "without a pid": {"hostname": HERE, "timestamp": "2026-01-01T00:00:00Z"},
    "with a word for a pid": {**lock(1), "pid": "one"},
    "without a time": {**lock(1), "timestamp": "yesterday"},
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_one_that_nothing_is_known_of_is_left_and_told_with_the_command(
    tmp_path: Path, content: str | dict[str, Any]
) -> None:
    """F16: an empty one was a traceback, another machine's "wait" for ever."""
    path = put(tmp_path, content)
    two_hours_ago = time.time() - 7200
    os.utime(path, (two_hours_ago, two_hours_ago))
    assert release_dead(tmp_path, "t") == []
    told = held_by_others("t", locks(tmp_path, "t"))
    assert "`plinth unlock t`" in told
    if isinstance(content, dict) and content.get("hostname") == "laptop.of.somebody":
        assert "pid 1 of ann on laptop.of.somebody took it" in told
    else:
        assert str(path) in told
        assert "2 h ago" in told


def test_of_a_state_elsewhere_no_holder_is_told() -> None:
    assert held_by_others("t", []).startswith("Another run may be changing 't' right now. Wait until it has ended;")


AGES = {0: "0 s", 119: "119 s", 600: "10 min", 3 * 3600: "3 h", -50: "0 s"}


@pytest.mark.parametrize(("age", "told"), AGES.items())
def test_the_age_of_a_lock_is_told(age: float, told: str) -> None:
    assert f"took it {told} ago" in Lock(Path("x"), NOW - age, 7, "h", "u").describe(NOW)


@pytest.mark.parametrize(
    "written", ["2026-11-29T13:28:46.190110645Z", "2026-11-29T13:28:46Z", "2026-11-29T14:28:46.19+01:00"]
)
def test_every_form_of_a_time_that_pulumi_writes_is_read(tmp_path: Path, written: str) -> None:
    put(tmp_path, {**lock(1), "timestamp": written})
    [found] = locks(tmp_path, "t")
    expected = datetime(2026, 11, 29, 14, 28, 46, tzinfo=timezone(timedelta(hours=1))).timestamp()
    assert abs(found.taken_at - expected) < 1


def test_a_lock_of_another_environment_is_none(tmp_path: Path, dead: int) -> None:
    path = put(tmp_path, lock(dead), env="other")
    assert locks(tmp_path, "t") == release_dead(tmp_path, "t") == []
    assert path.exists()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "stacks" / "Pulumi.t.yaml").write_text("config: {plinth:target: local}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    return tmp_path


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_unlock_releases_what_nothing_is_known_of(project: Path, content: str | dict[str, Any]) -> None:
    path = put(home(project, "t").backend, content)
    # Without a terminal `--yes` is the only answer.
    assert CliRunner().invoke(app, ["unlock", "t"]).exit_code != 0
    assert path.exists()
    done = CliRunner().invoke(app, ["unlock", "t", "--yes"])
    assert done.exit_code == 0, done.output
    assert not path.exists()
    assert "is not locked" in CliRunner().invoke(app, ["unlock", "t", "--yes"]).output


def test_unlock_refuses_while_the_run_is_alive(project: Path, tmp_path: Path) -> None:
    program = tmp_path / "pulumi"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "1000"])
    try:
        path = put(home(project, "t").backend, lock(process.pid, at=time.time() + 1))
        refused = CliRunner().invoke(app, ["unlock", "t", "--yes"])
        assert refused.exit_code == 1
        assert "is alive on this machine" in str(refused.exception)
        assert path.exists()
    finally:
        process.kill()
        process.wait()


def test_nothing_of_pulumi_is_needed_to_unlock(project: Path, dead: int) -> None:
    path = put(home(project, "t").backend, lock(dead))
    program = "import sys; from plinth.cli import main; sys.argv = ['plinth', 'unlock', 't', '--yes']; main()"
    subprocess.run([sys.executable, "-c", program], env={"PATH": "/nowhere"}, cwd=project, check=True)
    assert not path.exists()
