"""Text of others on a terminal and in a log: shown, never obeyed."""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType
from typing import Any


def visible(text: str) -> str:
    r"""The text on one line, with each character that does something or shows as nothing as its escape, such as `\x1b`.

    Those are control characters of both ranges, line and paragraph separators, bidirectional controls, zero-width
    characters, lone surrogates, and every space but U+0020: two names that look alike are told apart.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class LineFormatter(logging.Formatter):
    """One record, one line; the lines of a traceback are indented, so that no message passes for a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without what a terminal would obey or a reader take for another record."""
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """The traceback, line by line."""
        return "\n".join(f"    {visible(line)}" for line in super().formatException(ei).splitlines())


def log_lines(level: int | str = logging.INFO, layout: str = "%(asctime)s %(levelname)s %(message)s") -> None:
    """Log to standard error as a daemon does: a line for each record."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(layout))
    logging.basicConfig(handlers=[handler], level=level)


def show_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For sys.excepthook: a traceback whose messages cannot control the terminal."""
    lines = "".join(traceback.format_exception(kind, error, trace)).splitlines()
    sys.stderr.write("\n".join([*(visible(line) for line in lines), ""]))
