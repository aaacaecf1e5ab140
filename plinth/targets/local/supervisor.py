"""supervisord, one for an environment: it keeps the local processes up. No Pulumi here.

The daemon starts with the first program and ends with the last. Its socket is a file that only this user can open.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

SOCKET_PATH_MAX = 100
OPEN_FILES = 65536
START_SECONDS = 1
DAEMON_DEADLINE_S = 20.0
STRAY_DEADLINE_S = 10.0


class ProgramFailed(Exception):
    """A program did not stay up; the message ends with its last words."""


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


class Supervisor:
    """The supervisord of one environment, by its run directory."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.programs = run / "programs"
        self.logs = run / "logs"
        self.config = run / "supervisord.conf"

    @property
    def socket(self) -> Path:
        """The control socket; a Unix socket's path is short, so a deep project's lies in the temporary directory."""
        path = self.run / "supervisor.sock"
        if len(str(path)) <= SOCKET_PATH_MAX:
            return path
        digest = hashlib.sha256(str(self.run).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"plinth-{os.geteuid()}-{digest}" / "supervisor.sock"

    def start(self, program: ProgramSpec) -> Instance:
        """Start a program, or restart it with a changed definition; returns once it stayed up for a second."""
        with self.locked():
            self._ensure_daemon()
            path = self.programs / f"{program.name}.conf"
            self._remove_group(program.name)
            path.write_text(self._section(program))
            path.chmod(0o600)
            self._rpc().reloadConfig()
            self._rpc().addProcessGroup(program.name)
        return self._wait_running(program.name)

    def stop(self, name: str) -> None:
        """Stop and forget a program; the daemon ends and the run directory goes with the last. Missing is fine."""
        with self.locked():
            if self.pid() is None:
                (self.programs / f"{name}.conf").unlink(missing_ok=True)
            else:
                self._remove_group(name)
                (self.programs / f"{name}.conf").unlink(missing_ok=True)
                self._rpc().reloadConfig()
            if not list(self.programs.glob("*.conf")):
                self._end_daemon()
                self._remove_run()

    def clear(self) -> None:
        """Remove what no resource knows of any more: programs that outlived a killed daemon, and the run directory."""
        with self.locked():
            if self.pid() is None:
                self.end_strays()
                self._remove_run()

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
        with ExitStack() as opened:
            while True:
                self.run.mkdir(parents=True, exist_ok=True)
                # The last to stop takes the directory away, and with it the file that others wait for.
                with suppress(FileNotFoundError):
                    lock = opened.enter_context((self.run / "lock").open("w"))
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    if os.path.samestat((self.run / "lock").stat(), os.fstat(lock.fileno())):
                        break
            yield

    def _remove_run(self) -> None:
        # By renaming: it is there whole or not at all for who waits for the lock in it.
        gone = self.run.with_name(f"{self.run.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        self.run.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _rpc(self) -> Any:
        transport: Any = SupervisorTransport(None, None, f"unix://{self.socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def _ensure_daemon(self) -> None:
        if self.pid() is not None:
            return
        self.end_strays()
        for directory in (self.programs, self.logs):
            directory.mkdir(parents=True, exist_ok=True)
        self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.socket.parent.stat().st_uid != os.geteuid():
            raise ProgramFailed(f"{self.socket.parent} belongs to another user; remove it and run up again.")
        self.config.write_text(self._daemon_section())
        # A session of its own: the daemon outlives the Pulumi plugin that starts it.
        with (self.logs / "start.log").open("w") as words:
            subprocess.run(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.config)],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                check=False,
            )
        deadline = time.monotonic() + DAEMON_DEADLINE_S
        while self.pid() is None:
            if time.monotonic() > deadline:
                raise ProgramFailed(f"supervisord did not start: {self.last_words('start')}")
            time.sleep(0.1)

    def strays(self) -> list[psutil.Process]:
        """Programs that outlived a killed daemon: they work within the environment's place, on no terminal."""
        found = []
        for process in psutil.process_iter():
            try:
                # Postgres moves from its config directory to its data, which lies beside `run`.
                if Path(process.cwd()).is_relative_to(self.run.parent) and process.terminal() is None:
                    found.append(process)
            except (psutil.Error, OSError):
                continue  # it ended meanwhile, or is another user's
        return found

    def end_strays(self) -> None:
        """End what outlived the daemon: it holds the ports and the data that the new programs need."""
        for process in self.strays():
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        deadline = time.monotonic() + STRAY_DEADLINE_S
        # Asked anew each time: one that ended may stay behind as a zombie that nobody waits for.
        while (left := self.strays()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _end_daemon(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        daemon = psutil.Process(pid)
        self._rpc().shutdown()
        try:
            daemon.wait(timeout=DAEMON_DEADLINE_S)
        except psutil.TimeoutExpired:
            # Its programs have ended before: nothing is lost with it.
            daemon.kill()
            daemon.wait(timeout=DAEMON_DEADLINE_S)
        if self.socket.parent != self.run:
            self.socket.unlink(missing_ok=True)
            self.socket.parent.rmdir()

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
        return "\n".join(
            [
                "[supervisord]",
                f"pidfile={self.run}/supervisord.pid",
                f"logfile={self.logs}/supervisord.log",
                "logfile_maxbytes=5MB",
                "logfile_backups=1",
                f"childlogdir={self.logs}",
                "umask=077",
                f"minfds={min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])}",
                *(["user=root"] if os.geteuid() == 0 else []),
                "[unix_http_server]",
                f"file={self.socket}",
                "chmod=0600",
                "[rpcinterface:supervisor]",
                "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
                "[include]",
                f"files={self.programs}/*.conf",
                "",
            ]
        )

    def _section(self, program: ProgramSpec) -> str:
        environment = ",".join(f'{key}="{_escape(value)}"' for key, value in sorted(program.environment.items()))
        return "\n".join(
            [
                f"[program:{program.name}]",
                f"command={' '.join(_quote(argument) for argument in program.argv)}",
                f"directory={program.directory}",
                f"environment={environment}",
                *([f"user={program.user}"] if program.user else []),
                "autostart=true",
                "autorestart=true",
                f"startsecs={START_SECONDS}",
                "startretries=3",
                f"stopsignal={program.stop_signal}",
                f"stopwaitsecs={program.stop_grace_s}",
                "killasgroup=true",
                "redirect_stderr=true",
                f"stdout_logfile={self.logs}/{program.name}.log",
                "stdout_logfile_maxbytes=20MB",
                "stdout_logfile_backups=2",
                "",
            ]
        )


def _instance(pid: int) -> Instance | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field, the name in parentheses, may hold spaces; the start time is field 22.
    return Instance(pid, int(stat.rpartition(")")[2].split()[19]))


def _escape(value: str) -> str:
    return value.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')


def _quote(argument: str) -> str:
    escaped = argument.replace("%", "%%")
    if escaped and not set(escaped) & set(" \t\n'\";\\#"):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'
