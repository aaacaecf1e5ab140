"""Whoever else is at work is waited for, for so long, and named so that it can be found, in a pod as well."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain, repeat
from pathlib import Path

import pytest

from plinth.backup.__main__ import parser
from plinth.backup.config import Config
from plinth.backup.repository.restic import Restic
from plinth.backup.session import BackupError, Busy, Done, working
from plinth.backup.wait_limits import PATIENCE_S, Patience

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    place = tmp_path_factory.mktemp("backups")
    (place / "p").write_text(PASSWORD)
    repository = {"location": str(place / "r"), "password_file": str(place / "p")}
    state = {"name": "t", "directory": str(place / "w"), "state": str(place / "s"), "repository": repository}
    return Config.model_validate(state)


def test_another_run_is_waited_for_by_the_name_of_its_process_and_host(config: Config) -> None:
    said: list[str] = []
    with ExitStack() as first:
        first.enter_context(working(config, lambda _: None))

        def ends_it(line: str) -> None:
            said.append(line)
            first.close()

        with working(config, ends_it, wait_s=60) as work:
            work.say("begun")
    holder = f"pid {os.getpid()} on {socket.gethostname()}, or a program that it started"
    assert said == [
        f"waiting for another backup, check, drill or restore ({holder}), 1 minutes at most",
        "begun",
    ]


@pytest.mark.parametrize(("wait_s", "lines"), [(0.0, 0), (0.2, 1)])
def test_one_that_does_not_end_in_time_is_a_sentence_that_names_it(config: Config, wait_s: float, lines: int) -> None:
    said: list[str] = []
    with (
        working(config, lambda _: None),
        pytest.raises(Busy, match=rf"pid {os.getpid()} on {socket.gethostname()}.*; wait until it has ended\.$"),
        working(config, said.append, wait_s=wait_s),
    ):
        pass
    assert len(said) == lines


def test_what_a_scheduler_runs_waits_longer_than_restic_keeps_the_lock_of_the_dead() -> None:
    for command in ("run", "check", "drill", "verify", "prune"):
        assert parser().parse_args(["--config", "c", command]).wait == PATIENCE_S > 30 * 60
    assert parser().parse_args(["--config", "c", "--wait", "5", "check"]).wait == 5


def test_nothing_is_tried_after_the_time_is_over() -> None:
    assert len(list(Patience(0.6, lambda _: None).moments(lambda: "somebody"))) <= 3
    assert len(list(Patience(0, lambda _: None).moments(lambda: "somebody"))) == 1


Holder = subprocess.Popen[bytes]


def restic(config: Config, *arguments: str) -> Holder:
    return subprocess.Popen(
        ["restic", "-r", config.repository.location, "--no-cache", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
    )


def locks(config: Config) -> list[Path]:
    return [each for each in (Path(config.repository.location) / "locks").iterdir() if "-tmp-" not in each.name]


def reader(config: Config) -> Holder:
    """Another machine's backup, which keeps a prune out until its input ends."""
    holder = restic(config, "backup", "--stdin")
    end = time.monotonic() + 60
    while not locks(config):
        assert time.monotonic() < end
        time.sleep(0.01)
    return holder


def pruner(config: Config) -> Holder:
    """Another machine's prune, which keeps everybody out; stopped as soon as it holds the lock."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        holder = restic(config, "prune")
        while holder.poll() is None:
            if locks(config):
                holder.send_signal(signal.SIGSTOP)
                # It may have let go between the two.
                if locks(config):
                    return holder
                holder.send_signal(signal.SIGCONT)
                break
            time.sleep(0.001)
        holder.wait()
    raise AssertionError("no prune was stopped while it held the lock")


def ended(holder: Holder) -> None:
    holder.send_signal(signal.SIGCONT)
    assert holder.stdin
    holder.stdin.close()
    holder.wait(60)


def read_all(repository: Restic) -> None:
    (snapshot,) = repository.snapshots()
    with repository.stream("dump", "--", snapshot.id, f"{snapshot.path}/file") as content:
        assert content.read() == b"x" * 100


WAITING: dict[str, tuple[Callable[[Config], Holder], Callable[[Restic], object]]] = {
    "a prune for a backup": (reader, lambda repository: repository.prune()),
    "a check for a backup": (reader, lambda repository: repository.check()),
    "a list for a prune": (pruner, lambda repository: repository.snapshots()),
    "a drill for a prune": (pruner, read_all),
}


@pytest.fixture(scope="module")
def stored(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A repository with one set."""
    stage = tmp_path_factory.mktemp("stage")
    (stage / "file").write_bytes(b"x" * 100)
    with working(config, lambda _: None) as work:
        repository = Restic(work)
        repository.open_or_make()
        repository.save(stage, complete=True)
    return config


@pytest.mark.skipif(shutil.which("restic") is None, reason="no restic")
@pytest.mark.parametrize(("hold", "work_on"), WAITING.values(), ids=WAITING)
def test_whoever_holds_the_repository_is_waited_for_and_named(
    stored: Config, hold: Callable[[Config], Holder], work_on: Callable[[Restic], object]
) -> None:
    holder, said = hold(stored), []

    def ends_it(line: str) -> None:
        said.append(line)
        ended(holder)

    with working(stored, ends_it) as work:
        work_on(Restic(work))
    assert said == [
        f"waiting for pid {holder.pid} on {socket.gethostname()}, which holds the lock of "
        f"{stored.repository.location}, 60 minutes at most"
    ]


@pytest.mark.skipif(shutil.which("restic") is None, reason="no restic")
def test_a_repository_that_stays_locked_is_a_sentence_that_names_who_holds_it(stored: Config) -> None:
    holder = reader(stored)
    with (
        working(stored, lambda _: None) as work,
        pytest.raises(BackupError, match=rf"still locked by pid {holder.pid} on {socket.gethostname()}; wait until"),
    ):
        Restic(work, lock_wait_s=0).prune()
    ended(holder)


def test_a_program_is_ended_once_it_is_over(config: Config) -> None:
    answers = chain([False], repeat(True))
    with working(config, lambda _: None) as work:
        assert work.run(["sleep", "600"], is_over=lambda: next(answers)) == Done(-signal.SIGKILL, "", "")
        assert work.run(["echo", "whole"], is_over=lambda: False) == Done(0, "whole\n", "")
