"""`plinth backup run|list|verify|check|drill|prune ENV`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from plinth.backup import drill as drills
from plinth.backup import look, show, take
from plinth.backup.config import Config
from plinth.backup.deployed import config_of
from plinth.backup.work import Say
from plinth.cli.common import Env, Json, console, outputs_of, print_json, stack_of

commands = typer.Typer(
    help="Backups: make one, see them, prove that they can be restored, restore.", no_args_is_help=True
)
Wanted = Annotated[
    str | None, typer.Option("--snapshot", help="A set, by the beginning of its id; the newest when absent.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="backup")


@commands.command()
def run(env: Env, json: Json = False) -> None:
    """Take every store, verify, keep; exit 1 when a part is missing. Example: plinth backup run local"""
    with _config(env) as config:
        taken = take.run(config, _say(json))
    if json:
        print_json(show.taken_json(taken))
    else:
        _print(show.taken_lines(taken))
    if not taken.manifest.complete:
        raise typer.Exit(1)


@commands.command("list")
def list_(env: Env, json: Json = False) -> None:
    """The sets of the repository, newest first. Example: plinth backup list local"""
    with _config(env) as config:
        found = look.sets(config, _say(json))
    if json:
        print_json([show.set_json(each) for each in found])
    else:
        _print([show.set_line(each) for each in found] or [f"No set yet; `plinth backup run {env}` makes one."])


@commands.command()
def verify(env: Env, snapshot: Wanted = None, json: Json = False) -> None:
    """Check the repository, and read every byte of a set. Example: plinth backup verify local"""
    with _config(env) as config:
        verified = look.verify(config, _say(json), snapshot)
    if json:
        print_json(show.verified_json(verified))
    else:
        _print(show.verified_lines(verified))
    if verified.problems:
        raise typer.Exit(1)


@commands.command()
def check(env: Env) -> None:
    """Check the repository, and read this week's part of its data. Example: plinth backup check local"""
    with _config(env) as config:
        look.check(config, _say(False))
    console.print("The repository is whole.")


@commands.command()
def drill(env: Env, snapshot: Wanted = None, json: Json = False) -> None:
    """Restore a set into throw-away instances, and compare. Example: plinth backup drill local"""
    with _config(env) as config:
        drilled = drills.run(config, _say(json), snapshot)
    if json:
        print_json(show.drilled_json(drilled))
    else:
        _print(show.drilled_lines(drilled))
    if drilled.result != "ok":
        raise typer.Exit(1)


@commands.command()
def prune(env: Env) -> None:
    """Let old sets go by the settings' retention, and free their room. Example: plinth backup prune local"""
    with _config(env) as config:
        look.prune(config, _say(False))


@contextmanager
def _config(env: str) -> Iterator[Config]:
    stack = stack_of(env)
    revision = stack.automation.info()
    with config_of(
        env, stack.settings, outputs_of(stack), stack.home, str(revision.version) if revision else None
    ) as config:
        yield config


def _say(quiet: bool) -> Say:
    if quiet:
        return lambda _line: None
    return lambda line: console.print(f"  {line}", highlight=False, markup=False)


def _print(lines: list[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False)
