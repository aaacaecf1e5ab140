"""`plinth schema`."""

from __future__ import annotations

import typer

from plinth.cli.common import print_json
from plinth.settings.loader import stack_schema


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(schema)


def schema() -> None:
    """Print the settings' JSON schema, for an editor. Example: plinth schema > stacks/settings.schema.json"""
    print_json(stack_schema())
