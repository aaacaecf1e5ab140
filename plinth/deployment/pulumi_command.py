"""The `pulumi` binary as a child that a Ctrl-C stops in good order: with its plugins, and with its state written."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO

import psutil
from pulumi import automation
from pulumi.automation._cmd import CommandResult
from pulumi.automation.errors import create_command_error
from semver import VersionInfo

from plinth.errors import UserError

# How long what is being done at a Ctrl-C may take to end by itself.
GRACE_S = 5.0
# How long the engine may then take to write its state.
END_S = 20.0
INTERVAL_S = 0.05


class Interrupted(UserError):
    """A person, or who manages the machine, ended the run."""

    def __init__(self, number: int) -> None:
        super().__init__("The run was interrupted.", exit_code=128 + number)


class Command(automation.PulumiCommand):
    """Runs `pulumi` in a session of its own: a terminal's Ctrl-C reaches Plinth alone, which hands it on in turn."""

    def __init__(self, command: str) -> None:
        """``command`` is the path of the binary."""
        self.command = str(Path(command).absolute())
        try:
            answer = subprocess.run(
                [self.command, "version"],
                env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
                capture_output=True,
                text=True,
                check=True,
            )
            self.version = VersionInfo.parse(answer.stdout.strip().removeprefix("v"))
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise UserError(
                f"{self.command} does not run as pulumi does ({error}); remove it, then `make bootstrap` installs it.",
                exit_code=1,
            ) from error

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], object] | None = None,
        on_error: Callable[[str], object] | None = None,
    ) -> CommandResult:
        """Run a command to its end; raises the Automation API's errors, and :class:`Interrupted`."""
        # The directory of the binary is the first for the plugins that come with it.
        path = os.pathsep.join([str(Path(self.command).parent), *_path(additional_env)])
        process = subprocess.Popen(
            [self.command, "--non-interactive", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            env={**os.environ, **additional_env, "PATH": path, "PULUMI_AUTOMATION_API": "true"},
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        output: list[str] = []
        errors: list[str] = []
        streams = ((process.stdout, output, on_output), (process.stderr, errors, on_error))
        readers = [_reader(stream, lines, on_line) for stream, lines, on_line in streams if stream]
        number = _wait(process)
        for reader in readers:
            reader.join(END_S)
        if number:
            raise Interrupted(number)
        result = CommandResult(stdout="\n".join(output), stderr="\n".join(errors), code=process.returncode)
        if process.returncode:
            raise create_command_error(result)
        return result


def _path(environment: Mapping[str, str]) -> list[str]:
    return [path for path in (environment.get("PATH") or os.environ.get("PATH"),) if path]


def _reader(stream: IO[str], lines: list[str], on_line: Callable[[str], object] | None) -> Thread:
    def read() -> None:
        for line in stream:
            lines.append(line.rstrip())
            if on_line:
                on_line(lines[-1])

    thread = Thread(target=read, daemon=True)
    thread.start()
    return thread


def _wait(process: subprocess.Popen[str]) -> int:
    """Wait until it ends; the signal that interrupted it, or 0. Another signal on the way ends it at once."""
    number = 0
    while True:
        try:
            if number:
                _wind_down(process)
            process.wait()
            return number
        except KeyboardInterrupt:
            number = _again(process, number, signal.SIGINT)
        except SystemExit as asked:
            # How :func:`plinth.system.managed_process.terminable` hands a SIGTERM on.
            number = _again(process, number, _signal_of(asked))


def _again(process: subprocess.Popen[str], before: int, number: int) -> int:
    if before:
        _end(_below(process), signal.SIGKILL)
        process.kill()
    return number


def _signal_of(asked: SystemExit) -> int:
    return asked.code - 128 if isinstance(asked.code, int) and asked.code > 128 else signal.SIGTERM


def _wind_down(process: subprocess.Popen[str]) -> None:
    """The engine begins nothing more; what takes longer than the grace is broken off, and nothing outlives it."""
    started = _below(process)
    process.send_signal(signal.SIGINT)
    if not _ends(process, GRACE_S):
        # At a SIGINT they would wait for what they do, and the engine for them.
        _end(_providers(started), signal.SIGTERM)
    if not _ends(process, END_S):
        process.kill()
        process.wait()
    _end(started, signal.SIGTERM)
    _, left = psutil.wait_procs(started, timeout=GRACE_S)
    _end(left, signal.SIGKILL)


def _ends(process: subprocess.Popen[str], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(INTERVAL_S)
    return process.poll() is not None


def _below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """What the engine started: its plugins, and what they are starting. Services have left it."""
    with suppress(psutil.Error):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def _providers(started: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in started if "pulumi.dynamic" in _command_line(each)]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _end(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)
