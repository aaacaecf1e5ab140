"""An engine that goes on after its `plinth` was killed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from plinth.deployment import orphaned_engine
from plinth.deployment.orphaned_engine import end_orphans, is_orphan
from plinth.deployment.state_lock import Lock
from tests.waiting import wait_for


@pytest.fixture
def pulumi(tmp_path: Path) -> list[str]:
    """A program of the engine's name with a plugin that takes a while."""
    shell = shutil.which("sh")
    assert shell
    path = tmp_path / "pulumi"
    shutil.copy(shell, path)
    return [str(path), "-c", "sleep 60 & wait"]


@pytest.fixture
def orphan(pulumi: list[str]) -> Iterator[psutil.Process]:
    start = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=-3, stderr=-3).pid)"
    done = subprocess.run([sys.executable, "-c", start, *pulumi], capture_output=True, check=True)
    process = psutil.Process(int(done.stdout))
    wait_for(process.children)
    started = [process, *process.children()]
    yield process
    for one in started:
        if one.is_running():
            one.kill()


def lock(pid: int) -> Lock:
    return Lock(Path("x.json"), time.time() + 1, pid, socket.gethostname())


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_one_that_no_run_drives_any_more_is_ended(orphan: psutil.Process, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_orphan(orphan):
        pytest.skip("a process of this machine adopts orphans for itself")
    monkeypatch.setattr(orphaned_engine, "GRACE_S", 0.2)
    plugins = orphan.children()
    assert plugins
    end_orphans([lock(orphan.pid)])
    assert all(map(is_over, (orphan, *plugins)))


def test_one_whose_run_goes_on_is_left_alone(pulumi: list[str]) -> None:
    with subprocess.Popen(pulumi) as engine:
        wait_for(psutil.Process(engine.pid).children)
        plugins = psutil.Process(engine.pid).children()
        end_orphans([lock(engine.pid)])
        assert engine.poll() is None
        for process in (*plugins, engine):
            process.kill()


def test_what_is_no_engine_or_of_no_known_number_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphaned_engine, "is_orphan", lambda _: True)
    end_orphans([lock(os.getpid()), Lock(Path("x.json"), 0.0), lock(2**22 - 1)])
