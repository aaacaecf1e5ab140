"""Commands in a container or in a Job: lines of output as they come, and an end on a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

OnLine = Callable[[str, bool], None]
"""Takes a line of output, and whether it is of standard error."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Interruption:
    """The signal that asked for the end, if any."""

    number: int | None = None

    @property
    def exit_code(self) -> int | None:
        """The exit code of a shell for a program that this signal ended; None without a signal."""
        return None if self.number is None else 128 + self.number


@contextmanager
def ended_by_signals(end: Callable[[], None]) -> Iterator[Interruption]:
    """Call ``end`` in a thread of its own at the first Ctrl-C or SIGTERM within the block; a second one raises.

    The output is read to its end: a command that is asked to end reports how that went. Main thread only.
    """
    interruption = Interruption()

    def handle(number: int, _frame: FrameType | None) -> None:
        if interruption.number is not None:
            raise KeyboardInterrupt
        interruption.number = number
        threading.Thread(target=end, daemon=True).start()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class LineBuffer:
    """A buffer that takes bytes as they come and returns lines of text."""

    def __init__(self) -> None:
        self._pending = b""

    def add(self, content: bytes) -> list[str]:
        """Return the lines that are complete now."""
        *lines, self._pending = (self._pending + content).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def rest(self) -> list[str]:
        """Return the last line without a newline, if there is one."""
        last, self._pending = self._pending, b""
        return [last.decode(errors="replace")] if last else []


def lines_of(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield chunks of bytes as lines of text."""
    buffer = LineBuffer()
    for chunk in chunks:
        yield from buffer.add(chunk)
    yield from buffer.rest()
