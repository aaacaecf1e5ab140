"""A subprocess of this machine that runs for as long as it is needed: start, wait until ready, stop."""

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
# Never through a link that another user put there.
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def fixed_environment(extra: Mapping[str, str] | None = None, home: Path | str = "/nonexistent") -> dict[str, str]:
    """Return the whole environment of a subprocess: nothing of the caller's, which may hold keys of other systems.

    A Python program finds modules where it is installed, and not in its working directory.
    """
    fixed = {"PATH": PATH, "HOME": str(home), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return {**fixed, "PYTHONSAFEPATH": "1", **(extra or {})}


def ended(process: subprocess.Popen[Any]) -> int:
    """Wait for a process in this one's terminal, end it when this one is asked to end, and return its exit code.

    A Ctrl-C reaches it directly: it finishes by itself, and this one waits for that.
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
    """Make a SIGTERM within the block unwind as a Ctrl-C does, so that every subprocess is ended. Main thread only.

    The end of the terminal does the same, unless the caller ignores it, as nohup does.
    """
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN]
    before = {each: signal.signal(each, lambda number, _: sys.exit(128 + number)) for each in numbers}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class Child:
    """A running subprocess. It works in ``directory``; its output goes into the file `log` there."""

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; ``environment`` is added to the fixed one, ``stop_signal`` is the signal that ends it."""
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
                # A Ctrl-C is for the caller, which then stops this process itself.
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def wait(self, name: str, ask: Callable[[], object], refusal: type[Exception]) -> None:
        """Probe until it is ready; else end it, and raise :class:`UserError` with its name and last output."""
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
        """End it; kill it with all its children when it does not exit."""
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
