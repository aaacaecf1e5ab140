"""The command line: `plinth COMMAND ENV`.

Exit codes: 0 yes, 1 it ran and the answer is no, 2 wrong use, 3 no verdict.
"""

from __future__ import annotations

import sys

import typer

from plinth.cli import backup, collections, images, load, migrate, plugins, secret, size, stack, status, tune
from plinth.cli.common import close_umask
from plinth.console import Terminal
from plinth.errors import UserError, refusal
from plinth.visible import show_crash

app = typer.Typer(
    name="plinth",
    help="The base a vector stack stands on: stand it up, prove it, keep it well.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
stack.register(app)
status.register(app)
collections.register(app)
load.register(app)
images.register(app)
plugins.register(app)
secret.register(app)
size.register(app)
tune.register(app)
backup.register(app)
migrate.register(app)


def main() -> None:
    """Run the command line; a user's mistake is one sentence on stderr and an exit code."""
    close_umask()
    sys.excepthook = show_crash
    try:
        app()
    except UserError as error:
        Terminal(stderr=True).print(f"plinth: {error}", style="red")
        sys.exit(error.exit_code)
    except ValueError as error:
        # What a model or a decoder refuses is a value that came from outside, and no fault of the program's flow.
        sentence = refusal(error)
        if sentence is None:
            raise
        Terminal(stderr=True).print(f"plinth: {sentence}", style="red")
        sys.exit(1)
