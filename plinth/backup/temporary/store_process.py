"""A temporary store as a process: write what it reads, give its directory to its account, and stop it.

Root writes only where nobody else may: a store's configuration and its log are written before its directory is given
away.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import psutil

from plinth.backup.session import BackupError
from plinth.backup.temporary.recipes import Kind, Place, Recipe, recipe
from plinth.programs.python_runtime import Python
from plinth.system import sandbox
from plinth.system.managed_process import fixed_environment

STOP_S = 30.0
PREPARE_S = 120.0
WORDS = 4096
_NAMESPACES = ("--pid", "--fork", "--kill-child", "--mount-proc", "--ipc")


@dataclass(frozen=True)
class Account:
    """The account that a program runs as."""

    uid: int
    gid: int

    @property
    def change(self) -> tuple[str, ...]:
        """Return the command prefix to run as this account permanently; empty where it is the caller's."""
        if os.geteuid() != 0:
            return ()
        ids = (f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups")
        return ("setpriv", *ids, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--pdeathsig=KILL", "--")


class Store:
    """A running store; whoever starts one stops it."""

    def __init__(
        self, process: subprocess.Popen[bytes], place: Place, log: int, made: Recipe, *, wrapped: bool
    ) -> None:
        """Wrap a process; ``wrapped``: the store is its only child, and the store ends with it."""
        self._process, self._place, self._log, self._wrapped = process, place, log, wrapped
        self._signal = signal.Signals[f"SIG{made.stop}"]
        self.told = dict(made.told)

    def words(self) -> str | None:
        """Return its last output where it has ended; None while it runs."""
        if self._process.poll() is None:
            return None
        return last_words(self._log)

    def stop(self) -> None:
        """Stop it with all its child processes, and remove its files."""
        with suppress(psutil.Error):
            own = psutil.Process(self._process.pid)
            started = own.children(recursive=True)
            for each in own.children() if self._wrapped else [own]:
                each.send_signal(self._signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
            for each in started:
                with suppress(psutil.Error):
                    each.kill()
        self._process.kill()
        self._process.wait()
        os.close(self._log)
        end_strays(self._place.top)
        shutil.rmtree(self._place.top, ignore_errors=True)


def start(
    kind: Kind,
    directory: Path,
    account: Account,
    reader: Account,
    seed: BinaryIO | None,
    python: Python,
    hidden: Sequence[Path],
) -> Store:
    """Start a store in an empty ``directory`` of this process's, as an account that cannot see what is ``hidden``."""
    directory.chmod(0o711)
    log = os.open(directory / "log", os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:

        def readable(name: str, text: str) -> Path:
            path = directory / name
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                _give(file.fileno(), os.geteuid(), account.gid, 0o640)
                file.write(text)
            return path

        place = Place(directory, readable)
        place.given.mkdir(mode=0o700)
        made = recipe(kind, place, seed)
        if "snapshots" in made.told:
            place.snapshots.mkdir(mode=0o700)
            _give_path(place.snapshots, reader.uid, account.gid, 0o2770)
        # Closed to the account until it owns all of it; after that nothing is written here.
        for path in (*sorted(place.given.rglob("*"), reverse=True), place.given):
            _give_path(path, account.uid, account.gid, 0o700 if path.is_dir() else 0o600)
        is_python = made.argv[0] == sys.executable
        argv = (python.executable, *made.argv[1:]) if is_python else made.argv
        own = {"TMPDIR": str(place.given), **made.environment, **(python.environment if is_python else {})}
        environment = fixed_environment(own, place.given)
        change = (*account.change, *_confined(hidden, directory))
        if made.before:
            _prepare(kind, (*change, *made.before), place.given, environment, log)
        apart = _apart()
        process = subprocess.Popen(
            (*apart, *change, *argv),
            cwd=place.given,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            umask=0o027,
            start_new_session=True,
        )
        return Store(process, place, log, made, wrapped="unshare" in apart)
    except BaseException:
        os.close(log)
        raise


def last_words(log: int) -> str:
    """Return the last output of a program, by the descriptor of its log."""
    size = os.fstat(log).st_size
    text = os.pread(log, WORDS, max(0, size - WORDS)).decode(errors="replace")
    return " / ".join(text.strip().splitlines()[-3:]) or "it said nothing"


def end_strays(directory: Path) -> None:
    """Stop processes in a directory of ours that outlived the run that started them."""
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(directory):
                process.kill()
                process.wait(STOP_S)
        except (psutil.Error, OSError):
            continue  # it ended in the meantime, or is another user's


def _confined(hidden: Sequence[Path], directory: Path) -> tuple[str, ...]:
    """Return the command prefix for a program that sees nothing of what is hidden but its own directory."""
    if not hidden:
        return ()
    hide = [f"--hide={each}" for each in hidden]
    return (sys.executable, "-I", sandbox.__file__, *hide, f"--write={directory}", "--")


def _prepare(kind: Kind, argv: Sequence[str], directory: Path, environment: dict[str, str], log: int) -> None:
    try:
        done = subprocess.run(
            argv,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=PREPARE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BackupError(f"A throw-away {kind} could not be made in {PREPARE_S:.0f} s.") from None
    if done.returncode != 0:
        raise BackupError(f"A throw-away {kind} could not be made: {last_words(log)}")


def _apart() -> tuple[str, ...]:
    """Return the command prefix for a program that ends with this process, together with all its children."""
    if os.geteuid() != 0:
        return ("setpriv", "--pdeathsig=KILL", "--") if shutil.which("setpriv") else ()
    alone = ("unshare", *_NAMESPACES, "--") if _has_namespaces() else ()
    return ("setpriv", "--pdeathsig=KILL", "--", *alone)


@cache
def _has_namespaces() -> bool:
    """Whether root may start a process in its own namespaces; not every container allows it."""
    try:
        done = subprocess.run(
            ["unshare", *_NAMESPACES, "--", "true"],
            env=fixed_environment(),
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _give_path(path: Path, uid: int, gid: int, mode: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        _give(descriptor, uid, gid, mode)
    finally:
        os.close(descriptor)


def _give(descriptor: int, uid: int, gid: int, mode: int) -> None:
    if os.geteuid() == 0:
        os.fchown(descriptor, uid, gid)
    os.fchmod(descriptor, mode)
