"""What keeps packages from starting their services holds for one command, and not a moment longer."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.waiting import wait_for

SCRIPT = ROOT / "scripts" / "without-starting"
FORBIDDEN, ALLOWED = 101, 0


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "policy-rc.d"
    monkeypatch.setenv("PLINTH_POLICY", str(path))
    return path


def run(*command: str) -> int:
    return subprocess.run([SCRIPT, *command], check=False).returncode


def asked(policy: Path) -> int:
    return subprocess.run([policy, "redis-server", "start"], check=False).returncode


def test_nothing_starts_while_the_command_runs_and_everything_after_it(policy: Path) -> None:
    assert run("sh", "-c", f"{policy} redis-server start; [ $? = {FORBIDDEN} ]") == 0
    assert not policy.exists()
    assert run("sh", "-c", "exit 7") == 7
    assert list(policy.parent.iterdir()) == []


def test_a_killed_one_leaves_a_policy_that_lets_everything_start_and_the_next_one_removes_it(policy: Path) -> None:
    process = subprocess.Popen([SCRIPT, "sleep", "600"], start_new_session=True)
    wait_for(policy.exists)
    assert asked(policy) == FORBIDDEN
    # Alone, and not its command: apt-get goes on for a while.
    process.kill()
    process.wait()
    assert asked(policy) == ALLOWED
    os.killpg(process.pid, signal.SIGKILL)
    assert run("sh", "-c", f"{policy}; [ $? = {FORBIDDEN} ]") == 0
    assert not policy.exists()


def test_the_machines_own_policy_stays(policy: Path) -> None:
    policy.write_text("#!/bin/sh\nexit 42\n")
    policy.chmod(0o755)
    assert run("true") == 0
    assert asked(policy) == 42
