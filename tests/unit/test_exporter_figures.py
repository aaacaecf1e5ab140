"""The exporter under an account of its own: root tells it the two figures that it may not see, and no more."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from plinth.exporter.usage_server import Asked, Machine, answer, figures
from plinth.system.accounts import VARIABLE
from tests.accounts import needs_accounts
from tests.waiting import wait_for

# What the page's process sees, and what it may do; then it goes on as the exporter does.
SERVES = """
import json, os, pathlib, sys, time
from plinth.exporter.usage_server import Machine, figures
port, volume, told = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
pipe = os.open(told, os.O_WRONLY)
seen = figures(Machine({"store": port}, {"store": [volume]}))
try:
    os.listdir(volume)
    closed = False
except PermissionError:
    closed = True
answers = {"uid": os.getuid(), "groups": os.getgroups(), "closed": closed, "sizes": seen.sizes(), "pid": os.getpid()}
answers["resident"] = {name: use.resident for name, use in seen.uses().items()}
os.write(pipe, json.dumps(answers).encode() + b"\\n")
os.close(pipe)
time.sleep(600)
"""


def read_line(told: Path) -> dict[str, Any]:
    # Not to the end: root's process holds the pipe too.
    with told.open() as pipe:
        answers: dict[str, Any] = json.loads(pipe.readline())
    return answers


def test_without_an_account_to_go_to_the_process_looks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({}, {})
    monkeypatch.delenv(VARIABLE, raising=False)
    assert figures(machine) is machine
    monkeypatch.setenv(VARIABLE, "plinth-exporter")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert figures(machine) is machine


def test_figures_come_over_a_socket_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 2**20)
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        machine = Machine({"here": listening.getsockname()[1]}, {"here": [tmp_path]})
        thread = threading.Thread(target=answer, args=(ours, machine))
        thread.start()
        with theirs:
            asked = Asked(theirs)
            assert asked.sizes() == machine.sizes()
            assert asked.uses()["here"].resident > 2**20
            # A question that there is none of is the other one: nothing else is told.
            del asked
            theirs.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=10)
    assert not thread.is_alive()


@needs_accounts
def test_root_looks_and_the_account_serves_and_they_end_together(tmp_path: Path) -> None:
    volume, told = tmp_path / "volume", tmp_path / "told"
    volume.mkdir(mode=0o700)
    (volume / "file").write_bytes(b"x" * 2**20)
    os.mkfifo(told)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        arguments = [str(listening.getsockname()[1]), str(volume), str(told)]
        process = subprocess.Popen(
            [sys.executable, "-c", SERVES, *arguments], env={**os.environ, VARIABLE: "plinth-exporter"}
        )
        answers = read_line(told)
    owner = pwd.getpwnam("plinth-exporter")
    assert (answers["uid"], answers["groups"], answers["closed"]) == (owner.pw_uid, [], True)
    assert answers["sizes"]["store"] >= 2**20
    assert answers["resident"]["store"] > 2**20
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) in (-signal.SIGTERM, 128 + signal.SIGTERM)
    wait_for(lambda: not psutil.pid_exists(answers["pid"]))


@needs_accounts
def test_the_page_ends_when_roots_process_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    program = SERVES.replace("time.sleep(600)", "\nwhile True: seen.sizes(); time.sleep(0.1)")
    process = subprocess.Popen(
        [sys.executable, "-c", program, "1", str(tmp_path), str(told)],
        env={**os.environ, VARIABLE: "plinth-exporter"},
    )
    answers = read_line(told)
    process.kill()
    process.wait()
    wait_for(lambda: not psutil.pid_exists(answers["pid"]))
