"""What the commands share: the environment argument, the console, questions, opening a deployed stack."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from plinth.deployment.reach import reach
from plinth.deployment.stack import Stack, open_stack
from plinth.errors import UserError
from plinth.settings.loader import project_root
from plinth.system.console import Terminal, console

Env = Annotated[str, typer.Argument(help="The environment: a file stacks/Pulumi.<env>.yaml.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; the only way past a question without a terminal.")]


def progress_console(*, json: bool) -> Terminal:
    """Where progress goes: JSON has standard output for itself."""
    return Terminal(stderr=True) if json else console


def stack_of(env: str) -> Stack:
    """The stack of an environment of this project."""
    return open_stack(project_root(), env)


def outputs_of(stack: Stack) -> dict[str, Any]:
    """The outputs of a deployed environment, secrets in the clear: never print them as they are."""
    outputs = stack.outputs()
    if "qdrant" not in outputs:
        raise UserError(f"'{stack.env}' is not deployed; run `plinth up {stack.env}` first.", exit_code=1)
    reach(stack)
    return outputs


def ask(question: str, yes: bool) -> None:
    """Leave unless the answer is yes; without a terminal only ``--yes`` is an answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"{question} There is no terminal to ask on; add --yes if you mean it.")
    typer.confirm(question, abort=True)


def print_line(line: str) -> None:
    """A line on standard output as it is, however long: for a program to read, or to be copied."""
    typer.echo(line)


def print_json(data: Any) -> None:
    """JSON on standard output, alone."""
    typer.echo(json.dumps(data, indent=2, sort_keys=False))
