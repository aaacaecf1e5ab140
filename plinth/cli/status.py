"""`plinth status ENV`."""

from __future__ import annotations

from typing import Any

import typer

from plinth.engine import Stack


def register(app: typer.Typer) -> None:
    """Add the command."""


def show(stack: Stack, outputs: dict[str, Any]) -> bool:
    return True
