"""A program of this machine that runs for as long as it is needed: started, waited for, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psutil

from plinth.errors import UserError

START_DEADLINE_S = 120.0
STOP_DEADLINE_S = 60.0
INTERVAL_S = 0.05
# Never through a link that another put there.
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def fixed_environment(extra: Mapping[str, str] | None = None, home: Path | str = "/nonexistent") -> dict[str, str]:
    """All that a program gets of its surroundings: nothing of the caller's, who may hold keys to other places.

    A Python program looks for modules where it is installed, and not in the directory that it works in.
    """
    fixed = {"PATH": PATH, "HOME": str(home), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return {**fixed, "PYTHONSAFEPATH": "1", **(extra or {})}


def ended(process: subprocess.Popen[Any]) -> int:
    """Wait for a process that shares this one's terminal, and end it where this one is asked to; its exit code.

    A Ctrl-C reaches it by itself: it ends what it has begun, and this one waits for that.
    """
    while True:
        try:
            code = process.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            continue
        except BaseException:
            process.terminate()
            process.wait()
            raise


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block a SIGTERM unwinds as a Ctrl-C does, so that whatever was started is ended. Main thread only.

    So does the end of the terminal, unless the caller had it ignored, as nohup does.
    """
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN]
    before = {each: signal.signal(each, lambda number, _: sys.exit(128 + number)) for each in numbers}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class Child:
    """A running program. It works in ``directory``, and what it says goes into the file `log` there."""

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; ``environment`` is what it has beside the fixed one, ``stop_signal`` what it ends at."""
        self._log, self._stop_signal = directory / "log", stop_signal
        with os.fdopen(os.open(self._log, APPEND, 0o600), "ab") as log:
            self._process = subprocess.Popen(
                argv,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=user,
                env=fixed_environment(environment, directory),
                # A Ctrl-C is for the caller, which then stops this in its own time.
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def wait(self, name: str, ask: Callable[[], object], refusal: type[Exception]) -> None:
        """Ask until it no longer refuses; else end it, and raise :class:`UserError` with its name and last words."""
        deadline = time.monotonic() + START_DEADLINE_S
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                ask()
            except refusal:
                time.sleep(INTERVAL_S)
            else:
                return
        self.stop()
        words = self._log.read_text(errors="replace").strip().splitlines()[-3:]
        raise UserError(f"{name} did not start: {' / '.join(words) or 'it said nothing'}.", exit_code=1)

    def stop(self) -> None:
        """End it; with all that it started, where it does not go by itself."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            for started in psutil.Process(self.pid).children(recursive=True):
                started.kill()
            self._process.kill()
            self._process.wait()
