"""A program that is started, waited for and ended: what is said of one that does not serve, and of one that stays."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
import pytest

from plinth.errors import UserError
from plinth.system import managed_process
from plinth.system.managed_process import Child

STAYS = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("started.new").write_text(str(started.pid))
pathlib.Path("started.new").rename("started")
time.sleep(600)
"""


def python(program: str, directory: Path) -> Child:
    return Child([sys.executable, "-c", program], directory)


def test_one_that_ends_before_it_serves_is_named_with_its_last_words(tmp_path: Path) -> None:
    program = "print('one', 'two', 'three', 'four', sep='\\n'); raise SystemExit(3)"
    with (
        python(program, tmp_path) as running,
        pytest.raises(UserError, match=r"^The store did not start: two / three / four\.$"),
    ):
        running.wait("The store", (tmp_path / "never").read_text, OSError)


def test_one_that_never_serves_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed_process, "START_DEADLINE_S", 0.2)
    running = python("import time; time.sleep(600)", tmp_path)
    with pytest.raises(UserError, match="The store did not start: it said nothing"):
        running.wait("The store", (tmp_path / "never").read_text, OSError)
    assert not psutil.pid_exists(running.pid)


def test_one_that_does_not_go_is_killed_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managed_process, "STOP_DEADLINE_S", 0.2)
    with python(STAYS, tmp_path) as running:
        running.wait("It", (tmp_path / "started").read_text, OSError)
    started = int((tmp_path / "started").read_text())
    assert not psutil.pid_exists(running.pid)
    assert gone(started)


def test_what_it_prints_goes_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("as it was")
    (tmp_path / "log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="log"):
        python("print('chosen')", tmp_path)
    assert (tmp_path / "victim").read_text() == "as it was"


def test_it_gets_nothing_of_its_callers_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PULUMI_CONFIG_PASSPHRASE", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "PYTHONPATH", "LD_PRELOAD"):
        monkeypatch.setenv(name, "/of-the-caller")
    program = "import json, os, pathlib, time; pathlib.Path('new').write_text(json.dumps(dict(os.environ)));"
    program += "pathlib.Path('new').rename('environment'); time.sleep(600)"
    with Child([sys.executable, "-c", program], tmp_path, environment={"OWN": "named"}) as running:
        running.wait("It", (tmp_path / "environment").read_text, OSError)
    environment = json.loads((tmp_path / "environment").read_text())
    assert environment.pop("OWN") == "named"
    assert environment == managed_process.fixed_environment(home=tmp_path)


def gone(pid: int) -> bool:
    """Whether a process ends, or waits for a parent that will not ask for it."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False
