"""Foreign text on a terminal and in a log: displayed, never interpreted."""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType
from typing import Any


def visible(text: str) -> str:
    r"""Return the text on one line, with control and invisible characters as escapes such as `\x1b`.

    Those are control characters of both ranges, line and paragraph separators, bidirectional controls, zero-width
    characters, lone surrogates, and every space but U+0020: two names that look alike become distinct.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class LineFormatter(logging.Formatter):
    """One line for each record; the lines of a traceback are indented, so that no message looks like another record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line, with each character escaped that would control a terminal or begin another record."""
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """Return the traceback, each line escaped and indented."""
        return "\n".join(f"    {visible(line)}" for line in super().formatException(ei).splitlines())


def log_lines(level: int | str = logging.INFO, layout: str = "%(asctime)s %(levelname)s %(message)s") -> None:
    """Log to standard error as a daemon does: one line for each record."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(layout))
    logging.basicConfig(handlers=[handler], level=level)


def show_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback whose messages cannot control the terminal; for sys.excepthook."""
    lines = "".join(traceback.format_exception(kind, error, trace)).splitlines()
    sys.stderr.write("\n".join([*(visible(line) for line in lines), ""]))
