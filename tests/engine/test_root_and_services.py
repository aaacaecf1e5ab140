"""Root stands services up, and none of their accounts has a hand in what root does: by tracing root's own runs.

One stack of the embedded engine in a directory of its own; the tests are one story and run in order.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from plinth.system.accounts import written_by_services
from tests.accounts import needs_accounts
from tests.engine.project import Project
from tests.project import needs_prometheus, needs_pulumi
from tests.traced import Event, command, events, needs_strace, statuses, touched, unsafe

pytestmark = [pytest.mark.engine, needs_pulumi, needs_prometheus, needs_accounts, needs_strace]

# Runs what it is told, one after the other, so that one trace holds a whole story.
DRIVER = """
import json, subprocess, sys
for line in sys.stdin:
    done = subprocess.run(**json.loads(line), capture_output=True, text=True)
    print(json.dumps([done.returncode, done.stdout + done.stderr]), flush=True)
"""
# A link at each path, as far as the account may and nothing is there.
PLANTER = """
import contextlib, json, os, sys
planted = 0
for path, to in json.load(sys.stdin):
    with contextlib.suppress(OSError):
        os.symlink(to, path)
        planted += 1
print(planted)
"""
# Looked for in the trace: what comes between is of backups.
BACKUPS, DOWN = Path("/of backups"), Path("/of down")
OPERATORS = {"GITHUB_TOKEN": "planted-1", "AWS_SECRET_ACCESS_KEY": "planted-2", "OPERATOR_TOKEN": "planted-3"}
ROOTS = {"supervisord", "plinth-backup", "plinth-exporter"}


class TracedProject(Project):
    """A project whose commands run under strace, all in one session."""

    driver: subprocess.Popen[str] | None = None

    def run(self, program: str, *arguments: str, expect: int | None = 0, said: str = "", **variables: str) -> str:
        if self.driver is None:
            return super().run(program, *arguments, expect=expect, said=said, **variables)
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        request = {
            "args": [sys.executable, "-c", program, *arguments],
            "cwd": str(self.root),
            "env": {**self.surroundings(), **variables},
            "input": said,
        }
        self.driver.stdin.write(json.dumps(request) + "\n")
        self.driver.stdin.flush()
        code, answer = json.loads(self.driver.stdout.readline())
        assert expect is None or code == expect, answer
        return str(answer)


@dataclass
class Story:
    """A project, what was seen of it, and a place outside of it."""

    project: TracedProject
    trace: Path
    victim: Path
    seen: list[Event] = field(default_factory=list)
    before: dict[Path, os.stat_result] = field(default_factory=dict)

    def seen_within(self, first: Path, last: Path) -> list[Event]:
        """What was seen from one mark to another."""
        paths = [event.path for event in self.seen]
        return self.seen[paths.index(first) : paths.index(last)]

    def seen_outside(self, first: Path, last: Path) -> list[Event]:
        """What was seen but from one mark to another."""
        paths = [event.path for event in self.seen]
        return self.seen[: paths.index(first)] + self.seen[paths.index(last) :]

    def outside(self) -> dict[str, tuple[int, int, int, bytes]]:
        """Owner, mode and content of all that is where no service has any business."""
        found = {}
        for path in (self.victim, *self.victim.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (status.st_uid, status.st_gid, status.st_mode, content)
        return found


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with tempfile.TemporaryDirectory(prefix="plinth-traced-") as directory:
        base = Path(directory)
        base.chmod(0o711)
        (base / "victim").mkdir(mode=0o755)
        (base / "victim" / "file").write_text("as it was\n")
        (base / "project").mkdir(mode=0o755)
        made = Story(TracedProject(base / "project", "embedded"), base / "trace", base / "victim")
        yield made
        made.project.driver = None
        made.project.plinth("down", "t", "--yes")


def test_root_writes_nothing_where_a_service_chooses_what_is_there(story: Story) -> None:
    """The whole way: up, a changed setting, a mended service, down."""
    project = story.project
    project.driver = subprocess.Popen(
        command(story.trace, sys.executable, "-c", DRIVER),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # M2: nothing hangs on the mask of who starts it.
        umask=0o077,
    )
    project.up()
    change(project)
    project.up()
    project.supervised()["redis-server"].send_signal(signal.SIGKILL)
    project.up()
    mark(project, BACKUPS)
    for words in (("run",), ("drill",), ("restore", "--replace", "--yes")):
        project.plinth("backup", words[0], "t", *words[1:])
    mark(project, DOWN)
    story.before = statuses(project.root)
    project.plinth("down", "t", "--yes")
    assert project.driver.stdin is not None
    project.driver.stdin.close()
    assert project.driver.wait(timeout=60) == 0
    project.driver = None
    story.seen = events(story.trace.read_text(errors="replace").splitlines())
    # It did see root at work, and services as well.
    assert any(event.path == project.root / ".plinth" / "t" / "run" / "supervisord.conf" for event in story.seen)
    assert {pwd.getpwuid(event.uid).pw_name for event in story.seen} >= {"root", "plinth-qdrant", "redis", "postgres"}
    assert unsafe(story.seen_outside(BACKUPS, DOWN), story.before) == []


def test_backups_drills_and_restores_write_nothing_there_either(story: Story) -> None:
    assert story.seen, "the trace is missing"
    assert unsafe(story.seen_within(BACKUPS, DOWN), story.before) == []


def test_every_program_has_an_account_of_its_own_and_nothing_of_the_operators(story: Story) -> None:
    """M1, M5, H4."""
    before = os.umask(0o000)
    try:
        story.project.up(**OPERATORS)
        story.project.plinth("status", "t", "--no-cache")
    finally:
        os.umask(before)
    daemon = story.project.supervised()["supervisord"]
    programs = {process: process.uids().effective for process in daemon.children()}
    assert len(programs) >= 8
    others = {process: uid for process, uid in programs.items() if uid}
    roots = [" ".join(process.cmdline()) for process, uid in programs.items() if not uid]
    assert len(roots) == len(ROOTS) - 1, roots
    assert all("plinth.backup" in line or "plinth.exporter" in line for line in roots)
    assert len(set(others.values())) == len(others)
    assert pwd.getpwnam("nobody").pw_uid not in others.values()
    for process in (daemon, *daemon.children(recursive=True)):
        # Postgres and Redis write their titles over it; those of the same start show it elsewhere.
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert not [value for value in OPERATORS.values() if value.encode() in environment], process.cmdline()
    place = story.project.root / ".plinth" / "t"
    shared = [path for path in place.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o002]
    assert shared == []
    volumes = {path for path in (place / "data").glob("*/*") if path.is_dir()}
    for directory in place.rglob("*"):
        if directory.is_dir() and not any(directory.is_relative_to(volume) for volume in volumes):
            assert not written_by_services(directory.lstat()), directory


def test_links_at_every_path_that_root_touches_lead_root_nowhere(story: Story) -> None:
    """C2: as the service's account, at all that was traced and is free; services may fail of it."""
    assert story.seen, "the trace is missing"
    outside = story.outside()
    paths = sorted(touched(story.seen, story.before), key=lambda path: len(path.parts), reverse=True)
    paths = [path for path in paths if path.is_relative_to(story.project.root)]
    assert paths
    assert plant(paths, story) > 0
    change(story.project)
    story.project.plinth("up", "t", "--no-verify", expect=None)
    plant(paths, story)
    end(story.project, "redis-server", "redis")
    change(story.project)
    story.project.plinth("up", "t", "--no-verify", expect=None)
    for command_line in (("run",), ("verify",), ("drill",), ("restore", "--replace", "--yes")):
        plant(paths, story)
        story.project.plinth("backup", command_line[0], "t", *command_line[1:], expect=None)
    story.project.plinth("down", "t", "--yes")
    assert story.outside() == outside
    assert [process for process in psutil.process_iter(["environ"]) if belongs(process, story)] == []


def mark(project: TracedProject, path: Path) -> None:
    """Leave a word in the trace."""
    project.run(f"import os; os.path.lexists({str(path)!r})")


def plant(paths: list[Path], story: Story) -> int:
    """Links to a directory and to files that are there and are not, by every account that may make one."""
    targets = [story.victim, story.victim / "file", story.victim / "new"]
    accounts = [
        found.pw_name for found in pwd.getpwall() if found.pw_name.startswith("plinth-") or found.pw_name in PACKAGES
    ]
    planted = 0
    for name in accounts:
        links = [[str(path), str(targets[number % 3])] for number, path in enumerate(paths)]
        change = ["setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups", "--"]
        done = subprocess.run(
            [*change, "/usr/bin/python3", "-c", PLANTER],
            cwd="/",
            input=json.dumps(links),
            capture_output=True,
            text=True,
            check=True,
        )
        planted += int(done.stdout)
    return planted


PACKAGES = ("postgres", "redis", "prometheus")


def change(project: Project) -> None:
    """Another setting, so that a service gets other files."""
    redis = project.settings["plinth:redis"]
    redis["maxmemory_mib"] = redis.get("maxmemory_mib", 64) + 1
    project.save()


def end(project: Project, program: str, account: str) -> None:
    """As the account itself: its own process is its to end."""
    process = project.supervised().get(program)
    if process:
        subprocess.run(
            ["setpriv", f"--reuid={account}", "--clear-groups", "--", "kill", "-9", str(process.pid)], check=False
        )


def belongs(process: psutil.Process, story: Story) -> bool:
    environment = process.info["environ"] or {}
    return str(environment.get("PLINTH_ENVIRONMENT", "")).startswith(str(story.project.root))
