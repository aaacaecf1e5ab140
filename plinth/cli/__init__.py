"""The command line: `plinth COMMAND ENV`.

Exit codes: 0 yes, 1 it ran and the answer is no, 2 wrong use, 3 no verdict.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from plinth.cli.commands import Commands, Entry, show_version

# Each command with its module, which is imported when the command is run, and the line that `plinth --help` shows.
COMMANDS = {
    "up": Entry("stack", "Stand an environment up, or bring it to its settings, and prove that it serves."),
    "preview": Entry("stack", "Show what `up` would change; touches nothing."),
    "down": Entry("stack", "Stop an environment and remove what `up` made, except the data."),
    "refresh": Entry("stack", "Compare the state with what runs; says what is gone or drifted."),
    "unlock": Entry(
        "unlock", "Release the lock of a run that is dead: one of another machine, or one that cannot be read."
    ),
    "outputs": Entry("outputs", "Where each service is and how to get in; secrets are masked."),
    "status": Entry("status", "Is it well? Every service probed; exit 0 only when all are ready."),
    "collections": Entry("collections", "Collections as code: compare the files with the server, and apply them."),
    "load": Entry("load", "Judge an environment under load: exit 0 pass, 1 fail, 3 void."),
    "images": Entry(
        "images",
        "The container images of an environment: list, build Plinth's own, pull, save to a file, load from one.",
    ),
    "gateway": Entry("gateway", "The gateway: tokens for development."),
    "plugins": Entry("plugins", "Pulumi's plugins for the targets docker and kubernetes: list, install by digest."),
    "secret": Entry("secret", "Encrypt a secret of your own into stacks/Pulumi.<env>.yaml; `up` then applies it."),
    "size": Entry("size", "Memory, disk and tier for a number of vectors; exit 1 when nothing holds them."),
    "tune": Entry(
        "tune", "Try graphs and ways to search them on a sample, and print the front and the lines for the file."
    ),
    "backup": Entry("backup", "Backups: make one, see them, prove that they can be restored, restore."),
    "migrate": Entry(
        "migrate",
        "Move points from Postgres, Chroma, another Qdrant or files into a collection, resumable and compared.",
    ),
    "schema": Entry("schema", "Print the settings' JSON schema, for an editor."),
}


class PlinthCommands(Commands):
    """Plinth's own."""

    entries = COMMANDS


app = typer.Typer(
    cls=PlinthCommands,
    name="plinth",
    help="The base a vector stack stands on: stand it up, prove it, keep it well.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the versions.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """The base a vector stack stands on: stand it up, prove it, keep it well."""


def main() -> None:
    """Run the command line; a user's mistake is one sentence on stderr and an exit code."""
    from plinth.errors import UserError, refusal
    from plinth.printable import show_crash
    from plinth.system.umask import close_umask

    close_umask()
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's encoding has not is shown as its escape, and ends no command.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.excepthook = show_crash
    try:
        app()
    except UserError as error:
        _leave(str(error), error.exit_code)
    except ValueError as error:
        # What a model or a decoder refuses is a value that came from outside, and no fault of the program's flow.
        sentence = refusal(error)
        if sentence is None:
            raise
        _leave(sentence, 1)


def _leave(sentence: str, exit_code: int) -> NoReturn:
    from plinth.system.console import Terminal

    Terminal(stderr=True).print(f"plinth: {sentence}", style="red")
    sys.exit(exit_code)
