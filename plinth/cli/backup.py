"""`plinth backup run|list|verify|restore|drill|check|prune ENV`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from plinth.backup import look, show, take
from plinth.backup.config import Config, Stores
from plinth.backup.deployed import config_of, stores_of
from plinth.backup.prune_login import with_prune_login
from plinth.backup.source import STORES, Wish
from plinth.backup.work import Say
from plinth.cli.common import Env, Json, Yes, console, outputs_of, print_json, stack_of
from plinth.errors import UserError

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
    with _config(env, "run") as config:
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
    with _config(env, "list") as config:
        found = look.sets(config, _say(json))
    if json:
        print_json([show.set_json(each) for each in found])
    else:
        _print([show.set_line(each) for each in found] or [f"No set yet; `plinth backup run {env}` makes one."])


@commands.command()
def verify(env: Env, snapshot: Wanted = None, json: Json = False) -> None:
    """Check the repository, and read every byte of a set. Example: plinth backup verify local"""
    with _config(env, "verify") as config:
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
    with _config(env, "check") as config:
        look.check(config, _say(False))
    console.print("The repository is whole.")


@commands.command()
def drill(env: Env, snapshot: Wanted = None, json: Json = False) -> None:
    """Restore a set into throw-away instances, and compare. Example: plinth backup drill local"""
    # Slow to import, for the driver of Neo4j.
    from plinth.backup import drill as drills

    with _config(env, "drill") as config:
        drilled = drills.run(config, _say(json), snapshot)
    if json:
        print_json(show.drilled_json(drilled))
    else:
        _print(show.drilled_lines(drilled))
    if drilled.result != "ok":
        raise typer.Exit(1)


@commands.command()
def prune(
    env: Env,
    login: Annotated[
        Path | None, typer.Option(help="A file with a login that may delete, for an append-only repository.")
    ] = None,
) -> None:
    """Let old sets go by the settings' retention, and free their room. Example: plinth backup prune local"""
    with _config(env, "prune") as config:
        look.prune(with_prune_login(config, login) if login else config, _say(False))


@commands.command()
def restore(
    env: Env,
    snapshot: Annotated[
        str | None, typer.Option(help="A set, by the beginning of its id; the newest complete one when absent.")
    ] = None,
    store: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(STORES)}; all when absent. May be repeated.")
    ] = None,
    collection: Annotated[list[str] | None, typer.Option(help="A Qdrant collection. May be repeated.")] = None,
    database: Annotated[list[str] | None, typer.Option(help="A Postgres database. May be repeated.")] = None,
    to: Annotated[str | None, typer.Option(help="Another environment to restore into.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Restore over what is live there.")] = False,
    beside: Annotated[bool, typer.Option("--beside", help="Restore under new names, beside what is live.")] = False,
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Take a set that lacks a part.")] = False,
    yes: Yes = False,
) -> None:
    """Restore a set: all of it, a store, a collection, a database.

    It goes where nothing is; --replace takes the live names, --beside new ones. One that was killed goes on when it is
    run again. Example: plinth backup restore prod --collection trades_v1 --beside
    """
    # Slow to import, for the driver of Neo4j.
    from plinth.backup import restore as restores

    if replace and beside:
        raise UserError("--replace and --beside contradict each other; choose one.")
    if to == env:
        raise UserError(f"--to names '{env}' itself; leave it out to restore there, or name another environment.")
    wish = Wish(
        snapshot=snapshot,
        stores=tuple(store or ()),
        collections=tuple(collection or ()),
        databases=tuple(database or ()),
        replace=replace,
        beside=beside,
        incomplete=incomplete,
    )
    with ExitStack() as stack:
        source = stack.enter_context(_config(env, "restore"))
        target = stack.enter_context(_stores(to)) if to else source
        if replace:
            _ask_for_name(to or env, yes)
        restored = restores.run(source, target, wish, _say(False))
    _print(show.restored_lines(restored, to or env))


def _ask_for_name(env: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(
            f"--replace puts the backup's data in the place of what is live in '{env}', and there is no terminal to "
            "ask on; add --yes if you mean it."
        )
    if typer.prompt(f"The backup's data takes the place of what is live. Type '{env}' to go on") != env:
        raise UserError("That is not its name; nothing was touched.", exit_code=1)


@contextmanager
def _config(env: str, command: str) -> Iterator[Config]:
    stack = stack_of(env)
    outputs, revision = outputs_of(stack), stack.automation.info()
    version = str(revision.version) if revision else None
    with config_of(env, command, stack.settings, outputs, stack.home, version) as config:
        yield config


@contextmanager
def _stores(env: str) -> Iterator[Stores]:
    stack = stack_of(env)
    with stores_of(stack.settings, outputs_of(stack), stack.home) as stores:
        yield stores


def _say(quiet: bool) -> Say:
    if quiet:
        return lambda _line: None
    return lambda line: console.print(f"  {line}")


def _print(lines: list[str]) -> None:
    for line in lines:
        console.print(line)
