"""`plinth outputs ENV`."""

from __future__ import annotations

from typing import Annotated

import typer

from plinth.cli.common import Env, Json, print_json, stack_of
from plinth.cli.output_rows import rows
from plinth.errors import UserError
from plinth.system.console import console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(outputs)


def outputs(
    env: Env,
    json: Json = False,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Print secrets in the clear.")] = False,
) -> None:
    """Where each service is and how to get in; secrets are masked. Example: plinth outputs local --json"""
    stack = stack_of(env)
    deployed = stack.outputs() if show_secrets else stack.masked_outputs()
    shown = {name: value for name, value in deployed.items() if name != "deployed"}
    if not shown:
        raise UserError(f"The environment '{env}' is not deployed; run `plinth up {env}` first.", exit_code=1)
    if json:
        print_json(shown)
        return
    lines = rows(shown)
    width = max(len(key) for key, _ in lines)
    for key, value in lines:
        console.print(f"{key:<{width}}  {value}")
