"""Commands whose modules are imported when one is run: the list of all of them is shown without any."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class Entry(NamedTuple):
    """Where a command is, below :mod:`plinth.cli`, and what it does in a line."""

    module: str
    summary: str


class Commands(TyperGroup):
    """A group of commands by their entries."""

    entries: ClassVar[dict[str, Entry]] = {}

    def __init__(self, **options: Any) -> None:
        """What typer makes of the application, with a name and a line for each command."""
        super().__init__(**options)
        self.commands.update({name: TyperCommand(name, help=entry.summary) for name, entry in self.entries.items()})

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """The names, in the order of the entries."""
        return list(self.entries)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that is to run, imported now."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and self.load(str(command.name)), rest

    def load(self, name: str) -> Any:
        """The command itself, with its options."""
        return _loaded(self.entries[name].module)[name]


@cache
def _loaded(module: str) -> dict[str, Any]:
    application = typer.Typer()
    # A group alone would be taken for the application itself.
    application.callback()(lambda: None)
    import_module(f"plinth.cli.{module}").register(application)
    commands: dict[str, Any] = get_command(application).commands  # type: ignore[attr-defined]
    return commands


def show_version(asked: bool) -> None:
    """Print the versions of Plinth and of what it deploys with, and leave."""
    if asked:
        from plinth.cli.versions import version_lines
        from plinth.system.console import Terminal

        Terminal().print(*version_lines(), sep="\n")
        raise typer.Exit
