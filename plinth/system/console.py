"""The console that every command prints to: a string is text, never markup."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from plinth.printable import visible

# A log has no width of its own; 80 columns would fold every table.
LOG_COLUMNS = 120


class Terminal(Console):
    r"""A console that ignores markup and shows control characters as escapes; :func:`line` adds styles.

    A newline within a string is one of those characters: several lines are several arguments, and ``sep="\\n"``.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        stream = sys.stderr if stderr else sys.stdout
        width = None if stream.isatty() else LOG_COLUMNS
        super().__init__(**{"soft_wrap": True, "width": width, "stderr": stderr, **options})

    def render_str(self, text: str, *, style: Any = "", justify: Any = None, overflow: Any = None, **_: Any) -> Text:
        """Return a string as plain text: rich calls this for each string, including those in tables and titles."""
        return Text(visible(text), style=style, justify=justify, overflow=overflow)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Escape control characters in everything that is printed, as the last step."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_without_controls(segment.text), segment.style)


def line(*parts: str | tuple[str, str]) -> Text:
    """Return a line made of strings, and of pairs of a string and its style."""
    return Text.assemble(*(visible(part) if isinstance(part, str) else (visible(part[0]), part[1]) for part in parts))


def _without_controls(text: str) -> str:
    return text if text == "\n" else "\n".join(visible(part) for part in text.split("\n"))


console = Terminal()
