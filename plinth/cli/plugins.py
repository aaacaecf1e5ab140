"""`plinth plugins list|install`: Pulumi's own plugins for the targets docker and kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plinth.deployment import plugins
from plinth.deployment.pulumi_environment import pulumi_home
from plinth.settings.loader import project_root
from plinth.system.console import console

commands = typer.Typer(
    help="Pulumi's plugins for the targets docker and kubernetes: list, install by digest.", no_args_is_help=True
)


Name = Annotated[plugins.PluginName, typer.Argument(help="The target that needs it.", show_default=False)]
Archive = Annotated[
    Path | None,
    typer.Option("--file", help="A release archive on this machine, where there is no network.", show_default=False),
]
Digest = Annotated[
    str | None,
    typer.Option(help="The archive's SHA-256, where you trust another source than the pins.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="plugins")


@commands.command("list")
def list_() -> None:
    """The plugins, their versions, and whether they are there. Example: plinth plugins list"""
    home = pulumi_home(project_root())
    for name in plugins.PluginName:
        there = "there" if plugins.is_there(name, home) else "no"
        console.print(f"{there:<6} {name:<12} {plugins.plugin_version(name)}")


@commands.command()
def install(name: Name, file: Archive = None, sha256: Digest = None) -> None:
    """Install a plugin; nothing is run whose digest is not the expected one. Example: plinth plugins install docker"""
    root = project_root()
    console.print(f"{name}: {plugins.install(root, pulumi_home(root), name, file, sha256)}")
