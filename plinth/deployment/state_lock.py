"""The locks of Pulumi's local state: who holds one, whether that run still lives, and releasing those of dead runs.

Pulumi writes a file for each run, `{"pid", "username", "hostname", "timestamp"}`, and removes it at the end. A run that
was killed leaves it, and Pulumi then waits for ever.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

# A process is as old as its lock where it took it at once, and clocks are read in whole seconds.
SLACK_S = 2.0


@dataclass(frozen=True)
class Lock:
    """One lock file. ``pid`` is None where the file cannot be read."""

    path: Path
    taken_at: float
    pid: int | None = None
    host: str = ""
    user: str = ""

    def describe(self, now: float) -> str:
        """Who took it, and how long ago."""
        age = f"{_age(now - self.taken_at)} ago"
        if self.pid is None:
            return f"its lock {self.path} was left empty or damaged {age}"
        return f"pid {self.pid} of {self.user or 'an unknown user'} on {self.host} took it {age}"

    def is_dead(self, host: str, started_at: Callable[[int], float | None]) -> bool:
        """Whether the run that took it is known to have ended; of another machine's nothing is known."""
        if self.pid is None or self.host != host:
            return False
        began = started_at(self.pid)
        # Another process may have the number by now: it started after the lock was taken.
        return began is None or began > self.taken_at + SLACK_S


def locks(backend: Path, env: str) -> list[Lock]:
    """The locks of an environment."""
    files = (backend / ".pulumi" / "locks").rglob("*.json")
    return [lock for path in sorted(files) if path.parent.name == env and (lock := _read(path))]


def release_dead(backend: Path, env: str) -> list[Lock]:
    """Remove the locks of runs that have ended on this machine; those that were removed."""
    dead = [lock for lock in locks(backend, env) if lock.is_dead(socket.gethostname(), started_at)]
    for lock in dead:
        lock.path.unlink(missing_ok=True)
    return dead


def held_by_others(env: str, left: list[Lock]) -> str:
    """Why a run cannot begin, and what to do, for the locks that are left."""
    holders = "; ".join(lock.describe(time.time()) for lock in left)
    taken_by = f": {holders}" if holders else ""
    return (
        f"Another run may be changing '{env}' right now{taken_by}. Wait until it has ended; where it is known to "
        f"be dead, `plinth unlock {env}` releases the lock."
    )


def is_running(lock: Lock) -> bool:
    """Whether the run that took the lock is a process of this machine now."""
    return (
        lock.pid is not None
        and lock.host == socket.gethostname()
        and not lock.is_dead(lock.host, started_at)
        and _is_pulumi(lock.pid)
    )


def started_at(pid: int) -> float | None:
    """When a process started (Unix seconds), or None where there is none."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def _is_pulumi(pid: int) -> bool:
    try:
        return "pulumi" in psutil.Process(pid).name()
    except psutil.Error:
        return False


def _read(path: Path) -> Lock | None:
    try:
        modified = path.stat().st_mtime
    except FileNotFoundError:
        return None  # released meanwhile
    try:
        fields = json.loads(path.read_text())
        taken_at = datetime.fromisoformat(str(fields["timestamp"]).replace("Z", "+00:00")).timestamp()
        pid, host = int(fields["pid"]), str(fields["hostname"])
    except (OSError, ValueError, KeyError, TypeError):
        return Lock(path, modified)
    return Lock(path, taken_at, pid, host, str(fields.get("username", "")))


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
