"""Command lines that documents show, and whether the command line takes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import product
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from plinth.cli import app
from plinth.cli.commands import Commands

_SPAN = re.compile(r"`(plinth [^`]+)`")
_LINE = re.compile(r"^ {4,}(?:\$ |\.venv/bin/)?(plinth [^#&|>;]+)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def shown(text: str) -> list[str]:
    """Every `plinth ...` of a page, in a sentence or on a line of its own."""
    indented = _FENCE.sub(lambda block: re.sub("^", "    ", block[0], flags=re.MULTILINE), text)
    lines = [match[1].strip() for line in indented.splitlines() if (match := _LINE.match(line))]
    # A table has to escape what stands between alternatives.
    return [*_SPAN.findall(text.replace("\\|", "|")), *lines]


def complaint(shown_as: str) -> str | None:
    """Why the command line would not take a line; None when it does.

    `a|b` are alternatives, `[x]` may be left out; a command's bare name is a mention of it.
    """
    for line in _written_out(shown_as):
        words = shlex.split(line)[1:]
        command: Any = get_command(app)
        path = ["plinth"]
        while isinstance(command, TyperGroup) and words:
            if words[0] in {"--help", *(name for option in command.params for name in option.opts)}:
                words = words[1:]
                continue
            if words[0] not in command.commands:
                return f"there is no `{' '.join([*path, words[0]])}`"
            inner = command.load(words[0]) if isinstance(command, Commands) else command.commands[words[0]]
            command, path, words = inner, [*path, words[0]], words[1:]
        if words and (wrong := _parse(command, words)):
            return f"`{line}`: {wrong}"
    return None


def _parse(command: Any, words: list[str]) -> str | None:
    try:
        found, left, _ = command.make_parser(typer.Context(command)).parse_args(args=list(words))
    except typer.BadParameter.__mro__[1] as error:  # wrong usage of any kind, which typer does not name
        return str(error.format_message())  # type: ignore[attr-defined]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    missing = [p.name for p in arguments if p.required and not found.get(p.name)]
    if missing and "--help" not in words:
        return f"{missing[0]} is missing"
    return f"{left[0]} is one word too many" if left else None


def _written_out(line: str) -> Iterator[str]:
    """A line with each choice made: without what may be left out, and with it."""
    for text in {re.sub(r"\[[^\]]*\]", "", line), re.sub(r"[\[\]]", "", line)}:
        choices = [word.split("|") for word in text.split(" ") if word and word != "..."]
        yield from (" ".join(chosen) for chosen in product(*choices))
