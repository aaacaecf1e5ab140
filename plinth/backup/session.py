"""A backup session: configuration, working directories, progress output, and subprocesses that inherit the lock."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from plinth.backup.config import Config
from plinth.backup.wait_limits import Patience
from plinth.errors import UserError
from plinth.printable import visible
from plinth.programs.executables import find
from plinth.programs.postgres import PROGRAM as POSTGRES
from plinth.programs.spec import Program
from plinth.system.managed_process import fixed_environment

if TYPE_CHECKING:
    from plinth.backup.manifest import Piece

Say = Callable[[str], None]
WATCH_S = 0.2


class BackupError(UserError):
    """A backup, check, drill or restore that failed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=1)


class Busy(BackupError):
    """Another run holds the lock."""


@dataclass(frozen=True)
class Done:
    """The result of a program that has ended."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Return the program's last error output, on one line."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return " / ".join(line.strip() for line in lines[-3:]) or "it said nothing"


@dataclass(frozen=True)
class Work:
    """A session under the lock. ``say`` reports a line of progress; ``turn`` is how long to wait for other runs."""

    config: Config
    say: Say
    lock: int
    turn: Patience
    measured: dict[str, Piece] = field(default_factory=dict)
    """Files of the stage that were hashed on their way there, by path."""

    @property
    def stage(self) -> Path:
        """Return the directory where a set is staged: always the same path, so that restic finds the previous set."""
        return self.config.directory / "stage"

    @property
    def cache(self) -> Path:
        """Return the cache directory of restic."""
        return self.config.directory / "cache"

    @property
    def temporary(self) -> Path:
        """Return the directory for restic's packs; a temporary directory in memory is too small for them."""
        return self.config.directory / "temporary"

    @property
    def scratch(self) -> Path:
        """Return the directory for the fetched files of a drill and for temporary instances of this process."""
        return self.config.directory / "drill"

    @property
    def fetched(self) -> Path:
        """Return the directory for the fetched files of a restore."""
        return self.config.directory / "restore"

    def run(
        self,
        argv: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        *,
        cwd: Path | None = None,
        stdout: IO[bytes] | None = None,
        is_over: Callable[[], bool] | None = None,
    ) -> Done:
        """Run a program to its end. It inherits the lock: if it outlives a killed run, it blocks the next run.

        It is killed once ``is_over`` returns true, which is polled several times a second.
        """
        with subprocess.Popen(
            [str(argument) for argument in argv],
            cwd=cwd,
            env=fixed_environment({"TMPDIR": str(self.temporary), **(environment or {})}),
            stdin=subprocess.DEVNULL,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(self.lock,),
        ) as process:
            try:
                out, err = _output(process, is_over)
            except BaseException:
                process.kill()
                raise
        return Done(process.returncode, (out or b"").decode(errors="replace"), err.decode(errors="replace"))


def _output(process: subprocess.Popen[bytes], is_over: Callable[[], bool] | None) -> tuple[bytes | None, bytes]:
    while is_over:
        try:
            return process.communicate(timeout=WATCH_S)
        except subprocess.TimeoutExpired:
            if is_over():
                process.kill()
    return process.communicate()


@contextmanager
def working(config: Config, say: Say, *, wait_s: float = 0.0) -> Iterator[Work]:
    """Hold the lock of the backup directory for one run.

    Raises :class:`Busy` where another run holds it for longer than ``wait_s``.
    """
    # Staged files are the data itself, with passwords in it.
    before = os.umask(0o077)
    try:
        with full_disk_said(config.directory):
            config.directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(config.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        with _closing(descriptor), full_disk_said(config.directory):
            turn = Patience(wait_s, lambda line: say(visible(line)))
            _take(descriptor, config, turn)
            os.ftruncate(descriptor, 0)
            # In pods each process is number 1, and the host name is the pod's.
            os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            work = Work(config, turn.say, descriptor, turn)
            emptied(work.temporary)
            yield work
    finally:
        os.umask(before)


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def full_disk_said(directory: Path) -> Iterator[None]:
    """Turn the error of a full disk, or of one that is not writable, into a user error."""
    try:
        yield
    except OSError as error:
        if not is_of_disk(error):
            raise
        raise BackupError(
            f"{error.filename or directory} cannot be written ({error.strerror}); what was backed up before is as it "
            f"was. Give {directory} room for a copy of the data, and run it again."
        ) from error


def is_of_disk(error: OSError) -> bool:
    """Whether a disk is full or not writable, so that no other store can be staged either."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def tool(name: str, package: str) -> str:
    """Return the path of a program; those of Postgres come from its newest installation."""
    found = find(Program(image="", binaries=(name,), package=package, search=POSTGRES.search))
    if found is None:
        raise BackupError(f"There is no {name} on this machine; `apt-get install {package}`, and run it again.")
    return found.argv[0]


def emptied(directory: Path) -> Path:
    """Empty a directory, or create it, and return it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def _take(descriptor: int, config: Config, turn: Patience) -> None:
    def holder() -> str:
        known = os.pread(descriptor, 320, 0).decode(errors="replace").strip()
        return f"pid {known or 'unknown'}, or a program that it started"

    for _ in turn.moments(lambda: f"another backup, check, drill or restore ({holder()})"):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
    raise Busy(
        f"Another backup, check, drill or restore of '{config.name}' is at work ({holder()}); wait until it has ended."
    )
