"""The real Pulumi engine, without a service: what it reads of the user's surroundings, and what a person is told."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pulumi
import pytest

from plinth.deployment.pulumi_environment import record_backend
from plinth.deployment.stack import Stack, open_stack
from tests.project import BUILT, Environment, needs_pulumi

pytestmark = [pytest.mark.engine, needs_pulumi]
OFF = {"enabled": False}


def exports() -> None:
    """What the state of the test has: secrets at every depth."""
    hidden = pulumi.Output.secret
    pulumi.export("qdrant", {"url": "http://127.0.0.1:1", "api_key": hidden("p@ss:w/ord"), "list": [1, None, True]})
    pulumi.export("backup", {"repository": "/srv/b", "password": hidden("ünïcode")})
    pulumi.export("whole", hidden({"a": [1.5, "two"]}))
    pulumi.export("deployed", {"tier": "small"})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """A project with a state that Pulumi wrote, in a directory that every format reads otherwise."""
    settings = {
        "plinth:target": "local",
        "plinth:qdrant": {"engine": "embedded"},
        "plinth:collections": {"only": []},
        **{f"plinth:{name}": OFF for name in ("postgres", "redis", "backup")},
        "plinth:monitoring": dict.fromkeys(("prometheus", "alertmanager", "grafana", "exporters"), OFF),
    }
    root = tmp_path_factory.mktemp("it's a#b %41 ü") / "project"
    made = Environment(root, settings)
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("PULUMI_"):
                patch.delenv(name)
        patch.setenv("PATH", f"{BUILT}{os.pathsep}{os.environ['PATH']}")
        stack = open_stack(root, "t")
        stack.automation.up(program=exports)
        record_backend(stack.home)
        yield made


@pytest.fixture
def state(project: Environment) -> Iterator[Path]:
    """The state's file, which is as it was again afterwards."""
    path = project.root / ".plinth" / "backend" / ".pulumi" / "stacks" / "plinth" / "t.json"
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


def by_pulumi(project: Environment, *arguments: str) -> Any:
    """What the binary itself says of the outputs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{BUILT}{os.pathsep}{os.environ['PATH']}")
        stack = open_stack(project.root, "t")
        return json.loads(stack._pulumi("stack", "output", "--json", *arguments, "--stack", "t"))


def test_the_outputs_are_those_that_pulumi_tells(project: Environment) -> None:
    shown = project.outputs()
    told = by_pulumi(project, "--show-secrets")
    assert shown == {name: value for name, value in told.items() if name != "deployed"}
    assert shown["qdrant"]["api_key"] == "p@ss:w/ord"
    masked = json.dumps(by_pulumi(project)).replace("[secret]", "********")
    assert project.json("outputs", "t") == {k: v for k, v in json.loads(masked).items() if k != "deployed"}


def test_what_cannot_be_read_here_is_read_by_pulumi(project: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    from plinth.deployment import stack as module
    from plinth.deployment.checkpoint import Unsupported

    monkeypatch.setenv("PATH", f"{BUILT}{os.pathsep}{os.environ['PATH']}")
    direct = open_stack(project.root, "t")
    expected = direct.outputs(), direct.masked_outputs()

    def unsupported(_: Path) -> None:
        raise Unsupported("it is of another version")

    monkeypatch.setattr(module, "read", unsupported)
    by_binary = open_stack(project.root, "t")
    assert (by_binary.outputs(), by_binary.masked_outputs()) == expected


def test_a_state_whose_attributes_a_killed_run_left_empty_is_opened(project: Environment) -> None:
    attributes = list((project.root / ".plinth" / "backend").rglob("*.attrs"))
    for path in attributes:
        path.write_bytes(b"")
    assert attributes
    assert by_pulumi(project, "--show-secrets")["qdrant"]["api_key"] == "p@ss:w/ord"


def test_a_secret_is_set_where_a_killed_run_left_an_attribute_empty(project: Environment) -> None:
    state = project.root / ".plinth" / "backend" / ".pulumi" / "stacks" / "plinth" / "t.json.attrs"
    state.write_bytes(b"")
    settings = project.file.read_bytes()
    try:
        project.plinth("secret", "t", "redis.password", said="a-password-of-16")
        assert b"secure:" in project.file.read_bytes()
    finally:
        project.file.write_bytes(settings)


def test_reading_starts_no_pulumi(project: Environment) -> None:
    project.plinth("outputs", "t", "--show-secrets", PATH="/usr/bin:/bin")
    project.plinth("status", "t", "--no-cache", expect=1, PATH="/usr/bin:/bin")


WRONG: dict[str, tuple[dict[str, str], int, str]] = {
    "another passphrase": ({"PULUMI_CONFIG_PASSPHRASE": "x"}, 2, "encrypted with another passphrase"),
    "an empty passphrase": ({"PULUMI_CONFIG_PASSPHRASE": ""}, 2, "PULUMI_CONFIG_PASSPHRASE is empty"),
    "a passphrase file that is not there": ({"PULUMI_CONFIG_PASSPHRASE_FILE": "/nowhere"}, 2, "/nowhere"),
    "other settings": ({"PULUMI_CONFIG": '{"plinth:tier": "large"}'}, 2, "unset PULUMI_CONFIG"),
    "another stack": ({"PULUMI_OPTION_STACK": "prod"}, 2, "unset PULUMI_OPTION_STACK"),
    "another state": ({"PULUMI_BACKEND_URL": "file:///tmp"}, 2, "unset PULUMI_BACKEND_URL"),
}


@pytest.mark.parametrize(("variables", "code", "told"), WRONG.values(), ids=WRONG)
def test_what_the_environment_has_is_refused_in_a_sentence(
    project: Environment, variables: dict[str, str], code: int, told: str
) -> None:
    """F21: tracebacks, other settings without a word, a second state over the running stack."""
    said = project.plinth("refresh", "t", expect=code, **variables)
    assert told in said
    assert "is recorded" not in said


@pytest.mark.parametrize(
    ("command", "size"),
    [("outputs", 0), ("status", 100), ("preview", 0), ("refresh", 0), ("up", 100), ("down", 0)],
)
def test_a_cut_state_is_refused_by_every_command_with_the_way_back(
    project: Environment, state: Path, command: str, size: int
) -> None:
    state.write_bytes(state.read_bytes()[:size])
    yes = ["--yes"] if command == "down" else []
    said = project.plinth(command, "t", *yes, expect=1)
    assert shlex.join(["cp", f"{state}.bak", str(state)]) in said
    assert "is recorded" not in said


@pytest.mark.parametrize("command", ["refresh", "down"])
def test_a_lock_of_another_machine_is_told_with_its_holder(project: Environment, command: str) -> None:
    directory = project.root / ".plinth" / "backend" / ".pulumi" / "locks" / "organization" / "plinth" / "t"
    directory.mkdir(parents=True, exist_ok=True)
    lock = directory / "0.json"
    taken_at = datetime.fromtimestamp(time.time() - 3600, UTC).isoformat()
    lock.write_text(
        json.dumps({"pid": 7, "username": "ann", "hostname": f"not-{socket.gethostname()}", "timestamp": taken_at})
    )
    try:
        said = project.plinth(command, "t", *(["--yes"] if command == "down" else []), expect=1)
        assert f"pid 7 of ann on not-{socket.gethostname()} took it 60 min ago" in said
        project.plinth("unlock", "t", "--yes")
        assert not lock.exists()
    finally:
        lock.unlink(missing_ok=True)


def test_a_failed_preview_says_that_nothing_was_changed(
    project: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was done so far is recorded, it said."""
    from plinth.cli import stack as commands
    from plinth.deployment.progress import Progress
    from plinth.errors import UserError

    monkeypatch.setenv("PATH", f"{BUILT}{os.pathsep}{os.environ['PATH']}")
    stack: Stack = open_stack(project.root, "t")

    def fails() -> None:
        raise UserError("The machine is too small.")

    progress = Progress(commands.console, preview=True)
    with (
        pytest.raises(UserError, match=r"too small\. Nothing was changed; mend the cause, then `plinth preview t`"),
        commands._engine(stack, progress, again="plinth preview t", changes=False),
    ):
        stack.automation.preview(program=fails, on_event=progress.on_event)


def test_an_interrupted_run_of_the_real_engine_is_one_sentence(project: Environment) -> None:
    program = (
        "import signal, sys, threading, time, os\n"
        "from plinth.deployment import automation as engine\n"
        "def slow(*_):\n"
        "    open('began', 'w').close()\n"
        "    time.sleep(30)\n"
        "engine.program = slow\n"
        "from plinth.cli import main\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "preview", "t"],
        cwd=project.root,
        env=project.surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    began = project.root / "began"
    while not began.exists() and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, 2)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.strip().splitlines() == ["plinth: Interrupted. Nothing was changed."]
