"""supervisord, one for an environment: it keeps the local processes up. No Pulumi here.

The daemon starts with the first program and ends with the last. Its socket is a file in the run directory, which only
this user can enter and write; whoever answers there is this user too, or is not asked.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import resource
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from plinth.errors import UserError
from plinth.system.accounts import first_account
from plinth.system.atomic_files import EXCLUSIVE, write_whole
from plinth.system.managed_process import fixed_environment
from plinth.system.private_directories import PASSAGE, PRIVATE, opened, purge, remove_tree
from plinth.targets.local.control import Control
from plinth.targets.local.strays import ENVIRONMENT, described, end, of_environment

OPEN_FILES = 65536
START_SECONDS = 1
DAEMON_DEADLINE_S = 20.0
# Its files are what programs print, in a directory that is open to one reader at most.
DAEMON_UMASK = 0o027
# Who reads what programs print, where root starts them.
LOG_READER = "plinth-fluent-bit"
_PLAIN = "/.,:=@_+-"
_ESCAPED = {"%": "%%"}


class ProgramFailed(UserError):
    """A program that does not do what it was asked to: stay up, or end."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=1)


@dataclass(frozen=True)
class Instance:
    """A running program: its process id and start time (clock ticks since boot), which together never repeat."""

    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.pid}@{self.started}"


@dataclass(frozen=True)
class ProgramSpec:
    """A program for supervisord. ``environment`` holds no secrets: /proc shows it to the same user."""

    name: str
    argv: tuple[str, ...]
    directory: str
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    stop_grace_s: int = 30
    umask: int = 0o077


class Supervisor:
    """The supervisord of one environment, by its run directory."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.programs = run / "programs"
        self.logs = run / "logs"
        self.config = run / "supervisord.conf"
        self._control = Control(run)

    def start(self, program: ProgramSpec) -> Instance:
        """Start a program, or restart it with a changed definition; returns once it stayed up for a second."""
        with self.locked():
            self._ensure_daemon()
            path = self.programs / f"{program.name}.conf"
            self._remove_group(program.name)
            write_whole(path, self._section(program))
            self._rpc().reloadConfig()
            self._rpc().addProcessGroup(program.name)
        return self._wait_running(program.name)

    def halt(self, name: str) -> None:
        """Stop a program and what outlived its daemon: its files are about to change hands."""
        with self.locked():
            if self.pid() is None:
                self.end_strays()
            else:
                self._remove_group(name)

    def stop(self, name: str) -> None:
        """Stop and forget a program; the daemon ends and the run directory goes with the last. Missing is fine."""
        with self.locked():
            if self.pid() is not None:
                self._remove_group(name)
            (self.programs / f"{name}.conf").unlink(missing_ok=True)
            if self.pid() is not None:
                self._rpc().reloadConfig()
            if not list(self.programs.glob("*.conf")):
                self._end_all()

    def clear(self) -> None:
        """End and remove what no resource knows of any more: the daemon, its programs, and the run directory.

        Raises :class:`ProgramFailed` with the processes that are still there.
        """
        with self.locked():
            self._end_all()

    def instance(self, name: str) -> Instance | None:
        """The running process of a program, or None when there is none."""
        if self.pid() is None:
            return None
        try:
            info = self._rpc().getProcessInfo(name)
        except (xmlrpc.client.Fault, OSError):
            return None
        return _instance(int(info["pid"])) if info["statename"] in ("RUNNING", "STARTING") else None

    def pid(self) -> int | None:
        """The daemon's process id, or None when it is not running."""
        try:
            return int(self._rpc().getPID())
        except (OSError, ValueError, xmlrpc.client.Error):
            return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time: the Pulumi plugin works on four resources at once.

        Also held by other work in the environment's place, which a starting daemon would take for a stray.
        """
        with ExitStack() as holding:
            while True:
                self._own_directories()
                # The last to stop takes the directory away, and with it the file that others wait for.
                with suppress(FileNotFoundError):
                    lock = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                    holding.callback(os.close, lock)
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    if os.path.samestat((self.run / "lock").stat(), os.fstat(lock)):
                        break
            yield

    def _own_directories(self) -> None:
        """Make the directories, and take back those that others could write once."""
        reader = first_account([LOG_READER])
        for directory, mode in (
            (self.run, PASSAGE),
            (self.programs, PRIVATE),
            # What is made in it is the reader's to read, by the group that it gets there.
            (self.logs, 0o2750 if reader else PRIVATE),
        ):
            with opened(directory, self.run.parent, mode) as descriptor:
                purge(descriptor)
                if reader and directory == self.logs:
                    os.fchown(descriptor, 0, pwd.getpwnam(reader).pw_gid)

    def _remove_run(self) -> None:
        # By renaming: it is there whole or not at all for who waits for the lock in it.
        with opened(self.run.parent, self.run.parent) as place:
            remove_tree(place, self.run.name)

    def _rpc(self) -> Any:
        return self._control.rpc()

    def _ensure_daemon(self) -> None:
        section = self._daemon_section()
        if self.pid() is not None:
            if _but_limit(self.config.read_text()) == _but_limit(section):
                return
            # One of an earlier Plinth, with a mask and an environment of its own: its programs start again with it.
            self._end_daemon()
        self.end_strays()
        (self.run / Control.NAME).unlink(missing_ok=True)
        write_whole(self.config, section)
        (self.logs / "start.log").unlink(missing_ok=True)
        # A session of its own: the daemon outlives the Pulumi plugin that starts it.
        with os.fdopen(os.open(self.logs / "start.log", EXCLUSIVE, 0o640), "w") as words:
            subprocess.run(
                [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(self.config)],
                start_new_session=True,
                cwd=self.run,
                env=fixed_environment({ENVIRONMENT: str(self.run.parent)}, self.run),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                umask=DAEMON_UMASK,
                check=False,
            )
        deadline = time.monotonic() + DAEMON_DEADLINE_S
        while self.pid() is None:
            if time.monotonic() > deadline:
                raise ProgramFailed(f"supervisord did not start: {self.last_words('start')}")
            time.sleep(0.1)

    def strays(self) -> list[psutil.Process]:
        """The processes of the environment, whether the daemon knows them or not."""
        return of_environment(self.run)

    def end_strays(self) -> None:
        """End what outlived the daemon: it holds the ports and the data that the new programs need."""
        left = end(self.run)
        if left:
            pids = ", ".join(map(described, left))
            raise ProgramFailed(f"These processes of {self.run.parent} do not end: {pids}; end them, and run it again.")

    def _end_all(self) -> None:
        self._end_daemon()
        self.end_strays()
        self._remove_run()

    def _end_daemon(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        daemon = psutil.Process(pid)
        with suppress(xmlrpc.client.Fault):
            self._rpc().stopAllProcesses()
        self._rpc().shutdown()
        try:
            daemon.wait(timeout=DAEMON_DEADLINE_S)
        except psutil.TimeoutExpired:
            # Its programs have ended before: nothing is lost with it.
            daemon.kill()
            daemon.wait(timeout=DAEMON_DEADLINE_S)

    def _remove_group(self, name: str) -> None:
        self._wait_started(name)
        for call in ("stopProcess", "removeProcessGroup"):
            try:
                getattr(self._rpc(), call)(name)
            except xmlrpc.client.Fault as fault:
                # 10 BAD_NAME: no such program; 70 NOT_RUNNING: already stopped.
                if fault.faultCode not in (10, 70):
                    raise

    def _wait_started(self, name: str) -> None:
        # A signal between the daemon's fork and the program's exec is lost, and a stop would then wait to kill it.
        with suppress(xmlrpc.client.Fault):
            while self._rpc().getProcessInfo(name)["statename"] == "STARTING":
                time.sleep(0.1)

    def _wait_running(self, name: str) -> Instance:
        while True:
            info = self._rpc().getProcessInfo(name)
            if info["statename"] == "RUNNING":
                instance = _instance(int(info["pid"]))
                if instance:
                    return instance
            elif info["statename"] not in ("STARTING", "BACKOFF"):
                why = info["spawnerr"] or info["statename"].lower()
                raise ProgramFailed(f"{name} does not stay up ({why}): {self.last_words(name)}")
            time.sleep(0.1)

    def last_words(self, name: str, lines: int = 3) -> str:
        """The end of a program's log, on one line, with where the rest is."""
        log = self.logs / f"{name}.log"
        text = log.read_text(errors="replace").strip().splitlines()[-lines:] if log.exists() else []
        return f"{' / '.join(text) or 'it said nothing'} (log: {log})"

    def _daemon_section(self) -> str:
        """The daemon's settings: every path as it is from the run directory, where the daemon works.

        supervisord expands `%`, parts lists at spaces and cuts comments off; the path of a project may hold all of it.
        """
        return "\n".join(
            [
                "[supervisord]",
                "pidfile=supervisord.pid",
                "logfile=logs/supervisord.log",
                "logfile_maxbytes=5MB",
                "logfile_backups=1",
                "childlogdir=logs",
                f"umask={DAEMON_UMASK:03o}",
                f"minfds={min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])}",
                *(["user=root"] if os.geteuid() == 0 else []),
                "[unix_http_server]",
                # By its working directory: a Unix socket's whole path is at most a hundred characters long.
                f"file=/proc/self/cwd/{Control.NAME}",
                "chmod=0600",
                "[rpcinterface:supervisor]",
                "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
                "[include]",
                # A pattern: what stands before it would be one too.
                "files=/proc/self/cwd/programs/*.conf",
                "",
            ]
        )

    def _section(self, program: ProgramSpec) -> str:
        # Its environment by `env`: supervisord's own setting for it cannot hold every path.
        variables = [f"{name}={value}" for name, value in sorted(program.environment.items())]
        # What holds `=` would be one more variable to it.
        shell = ("/bin/sh", "-c", 'exec "$0" "$@"') if "=" in program.argv[0] else ()
        words = ["/usr/bin/env", *variables, *shell, *program.argv] if variables else program.argv
        return "\n".join(
            [
                f"[program:{program.name}]",
                f"command={' '.join(map(_quote, words))}",
                f"directory={os.path.relpath(program.directory, self.run)}",
                f"umask={program.umask:03o}",
                *([f"user={program.user}"] if program.user else []),
                "autostart=true",
                "autorestart=true",
                f"startsecs={START_SECONDS}",
                "startretries=3",
                f"stopsignal={program.stop_signal}",
                f"stopwaitsecs={program.stop_grace_s}",
                "killasgroup=true",
                "redirect_stderr=true",
                f"stdout_logfile=logs/{program.name}.log",
                "stdout_logfile_maxbytes=20MB",
                "stdout_logfile_backups=2",
                "",
            ]
        )


def _but_limit(section: str) -> str:
    """Without the number of open files, which is that of whoever ran `up`."""
    return "\n".join(line for line in section.splitlines() if not line.startswith("minfds="))


def _instance(pid: int) -> Instance | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")  # a name is cut within a letter
    except OSError:
        return None
    # The second field, the name in parentheses, may hold spaces; the start time is field 22.
    return Instance(pid, int(stat.rpartition(")")[2].split()[19]))


def _quote(argument: str) -> str:
    """An argument as supervisord's command has it: a backslash before what a shell, or its file, would take otherwise.

    Between the quotes of a shell a blank and a semicolon would still begin a comment of the file.
    """
    return (
        "".join(
            letter if letter.isalnum() or letter in _PLAIN else _ESCAPED.get(letter, f"\\{letter}")
            for letter in argument
        )
        or '""'
    )
