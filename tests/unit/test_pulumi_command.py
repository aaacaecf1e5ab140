"""A Ctrl-C, a SIGTERM and the end of the terminal while `pulumi` works: what ends, in which order, and what is said."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from plinth.deployment.pulumi_command import Command
from plinth.errors import UserError
from tests.waiting import wait_for

# The engine as it ends at a SIGINT, with a plugin that it waits for. `obeys` ends by itself, `hangs` only when the
# plugin has, `deaf` never.
ENGINE = """
import os, signal, subprocess, sys, time
if sys.argv[1:] == ["version"]:
    print("v3.259.0")
    raise SystemExit
kind, directory = os.environ["KIND"], os.environ["DIRECTORY"]
waits = "import signal, time; signal.signal(signal.SIGINT, signal.{plugin}); time.sleep(1000)"
plugin = subprocess.Popen([sys.executable, "-c", waits, "-m", "pulumi.dynamic"])
def interrupted(*_):
    open(directory + "/interrupted", "a").write("x")
    if kind == "deaf":
        return
    if kind == "hangs":
        plugin.wait()
    open(directory + "/state-written", "w").write("x")
    os._exit(1)
signal.signal(signal.SIGINT, interrupted)
open(directory + "/plugin", "w").write(str(plugin.pid))
while True:
    time.sleep(0.05)
"""
CALLER = """
import sys
from pathlib import Path
from plinth.deployment import pulumi_command
from plinth.system.managed_process import terminable
pulumi_command.GRACE_S, pulumi_command.END_S = 0.5, 1.0
command = pulumi_command.Command(sys.argv[1])
try:
    with terminable():
        command.run(["up"], "/", {})
except pulumi_command.Interrupted as error:
    print("interrupted", error.exit_code)
"""


class Run:
    def __init__(self, directory: Path, kind: str, plugin: str = "SIG_DFL") -> None:
        binary = directory / "bin" / "pulumi"
        binary.parent.mkdir()
        engine = binary.with_name("engine.py")
        engine.write_text(ENGINE.format(plugin=plugin))
        # The first line of a script names no program whose path has a blank.
        binary.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(engine))} "$@"\n')
        binary.chmod(0o755)
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-c", CALLER, str(binary)],
            env={**os.environ, "KIND": kind, "DIRECTORY": str(directory)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_for(lambda: (directory / "plugin").exists() and (directory / "plugin").read_text() != "")
        self.below = psutil.Process(self.process.pid).children(recursive=True)

    def ends(self) -> tuple[str, str]:
        stdout, stderr = self.process.communicate(timeout=60)
        return stdout.strip(), stderr

    def left(self) -> list[psutil.Process]:
        return [each for each in self.below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Run]]:
    runs: list[Run] = []
    yield runs
    for run in runs:
        for process in (*run.left(), run.process):
            process.kill()
        run.process.wait()


SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, "the end of the terminal": signal.SIGHUP}


@pytest.mark.parametrize("number", SIGNALS.values(), ids=SIGNALS)
@pytest.mark.parametrize("kind", ["obeys", "hangs", "deaf"])
def test_an_interrupted_run_leaves_nothing_behind(
    started: list[Run], tmp_path: Path, kind: str, number: signal.Signals
) -> None:
    """R2: a thread's traceback, and the provider stayed for minutes."""
    run = Run(tmp_path, kind)
    started.append(run)
    run.process.send_signal(number)
    said, traces = run.ends()
    assert said == f"interrupted {128 + number}"
    assert "Traceback" not in traces
    assert run.left() == []
    # The engine is asked once, however often the terminal would have told it, and is waited for.
    assert (tmp_path / "interrupted").read_text() == "x"
    assert (tmp_path / "state-written").exists() == (kind != "deaf")


def test_a_terminals_ctrl_c_reaches_the_engine_by_plinth_alone(started: list[Run], tmp_path: Path) -> None:
    run = Run(tmp_path, "obeys")
    started.append(run)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.ends()[0] == "interrupted 130"
    assert (tmp_path / "interrupted").read_text() == "x"


def test_a_provider_that_heeds_nothing_is_ended(started: list[Run], tmp_path: Path) -> None:
    run = Run(tmp_path, "obeys", plugin="SIG_IGN")
    started.append(run)
    run.process.send_signal(signal.SIGINT)
    assert run.ends()[0] == "interrupted 130"
    assert run.left() == []


def test_a_second_ctrl_c_ends_it_at_once(started: list[Run], tmp_path: Path) -> None:
    run = Run(tmp_path, "hangs", plugin="SIG_IGN")
    started.append(run)
    run.process.send_signal(signal.SIGINT)
    wait_for(lambda: (tmp_path / "interrupted").exists())
    time.sleep(0.1)
    run.process.send_signal(signal.SIGINT)
    said, traces = run.ends()
    assert said == "interrupted 130"
    assert "Traceback" not in traces
    assert run.left() == []


BINARIES = {
    "cut off": b"\x7fELF",
    "another program": b"#!/bin/sh\necho hello\n",
    "one that fails": b"#!/bin/sh\nexit 1\n",
    "empty": b"",
}


@pytest.mark.parametrize("content", BINARIES.values(), ids=BINARIES)
def test_a_binary_that_is_none_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    binary = tmp_path / "pulumi"
    binary.write_bytes(content)
    binary.chmod(0o755)
    with pytest.raises(UserError, match="`make bootstrap`") as refused:
        Command(str(binary))
    assert str(binary) in str(refused.value)
