"""The processes of an environment, without the daemon's word: one that was killed, or never known, leaves them."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil

# Names the environment's place to every process that belongs to it.
ENVIRONMENT = "PLINTH_ENVIRONMENT"
DEADLINE_S = 10.0


def of_environment(run: Path) -> list[psutil.Process]:
    """What runs for the environment of a run directory, but this process and those that it runs for."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in own and _belongs(process, run)]


def end(run: Path) -> list[psutil.Process]:
    """End what runs for the environment; what is left is what cannot be ended."""
    for process in of_environment(run):
        with suppress(psutil.Error):
            process.terminate()
    left = _wait(run)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    return _wait(run) if left else []


def described(process: psutil.Process) -> str:
    """A process for a person: its id, its name and whose it is."""
    with suppress(psutil.Error):
        return f"{process.pid} ({process.name()} of {process.username()})"
    return str(process.pid)


def _wait(run: Path) -> list[psutil.Process]:
    deadline = time.monotonic() + DEADLINE_S
    # Asked anew each time: one that ended may stay behind as a zombie that nobody waits for.
    while (left := of_environment(run)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _belongs(process: psutil.Process, run: Path) -> bool:
    """By what it was started with, or else by where it works: some programs write over their environment."""
    place = run.parent
    with suppress(psutil.Error, OSError):
        # A daemon of an earlier Plinth has no other sign.
        if str(run / "supervisord.conf") in process.cmdline():
            return True
    with suppress(psutil.Error, OSError):
        if process.environ().get(ENVIRONMENT) == str(place):
            return process.status() != psutil.STATUS_ZOMBIE
    with suppress(psutil.Error, OSError):
        # Postgres moves from its config directory to its data. Others may work there too, with a terminal or without.
        return Path(process.cwd()).is_relative_to(place) and process.terminal() is None and _is_supervised(process.pid)
    return False


def _is_supervised(pid: int) -> bool:
    """Whether a supervisord started a process, or it has written its title over the variables that would say so."""
    variables = Path(f"/proc/{pid}/environ").read_bytes()
    return bool(variables) and (b"SUPERVISOR_ENABLED=" in variables or b"PATH=" not in variables)
