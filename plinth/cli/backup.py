"""`plinth backup run|list|verify|restore|drill|check|prune ENV`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from plinth.backup.config import Config, Stores
from plinth.backup.environment_config import config_of, require_backups, stores_of, written
from plinth.backup.repository.prune_login import with_prune_login
from plinth.backup.restore_source import STORES
from plinth.backup.temporary.launcher import passed
from plinth.cli.common import Env, Json, Yes, outputs_of, stack_of
from plinth.cli.execution import run_in_stack
from plinth.errors import UserError
from plinth.services.backup import ACCOUNT, NAME
from plinth.settings import TargetName
from plinth.system.accounts import VARIABLE
from plinth.system.managed_process import ended, fixed_environment, terminable

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
    _run(env, "run", json=json)


@commands.command("list")
def list_(env: Env, json: Json = False) -> None:
    """The sets of the repository, newest first. Example: plinth backup list local"""
    _run(env, "list", json=json)


@commands.command()
def verify(
    env: Env,
    snapshot: Wanted = None,
    every: Annotated[bool, typer.Option("--all", help="Every set of the repository.")] = False,
    json: Json = False,
) -> None:
    """Check the repository, and read every byte of a set. Example: plinth backup verify local --all"""
    if every and snapshot:
        raise UserError("--all and --snapshot contradict each other; choose one.")
    _run(env, "verify", ["--all"] if every else [], snapshot=snapshot, json=json)


@commands.command()
def check(
    env: Env,
    every: Annotated[bool, typer.Option("--all", help="Read all of its data, not this week's part.")] = False,
    json: Json = False,
) -> None:
    """Check the repository, and read this week's part of its data. Example: plinth backup check local --all"""
    _run(env, "check", ["--all"] if every else [], json=json)


@commands.command()
def drill(env: Env, snapshot: Wanted = None, json: Json = False) -> None:
    """Restore a set into throw-away instances, and compare. Example: plinth backup drill local"""
    _run(env, "drill", snapshot=snapshot, json=json)


@commands.command()
def prune(
    env: Env,
    login: Annotated[
        Path | None, typer.Option(help="A file with a login that may delete, for an append-only repository.")
    ] = None,
) -> None:
    """Let old sets go by the settings' retention, and free their room. Example: plinth backup prune local"""
    _run(env, "prune", login=login)


@commands.command()
def restore(
    env: Env,
    snapshot: Annotated[
        str | None, typer.Option(help="A set, by the beginning of its id; the newest complete one when absent.")
    ] = None,
    store: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(STORES)}; all when absent. May be repeated.")
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="A Qdrant collection or an alias. May be repeated.")
    ] = None,
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
    if replace and beside:
        raise UserError("--replace and --beside contradict each other; choose one.")
    if to == env:
        raise UserError(f"--to names '{env}' itself; leave it out to restore there, or name another environment.")
    arguments = [f"--{kind}={name}" for kind, names in _named(store, collection, database) for name in names]
    arguments += [f"--{flag}" for flag, given in (("beside", beside), ("incomplete", incomplete)) if given]
    if replace:
        stack_of(to or env)
        _ask_for_name(to or env, yes)
        arguments += ["--replace", "--yes"]
    _run(env, "restore", arguments, snapshot=snapshot, to=to)


def _named(
    store: list[str] | None, collection: list[str] | None, database: list[str] | None
) -> tuple[tuple[str, list[str]], ...]:
    return ("store", store or []), ("collection", collection or []), ("database", database or [])


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


def _run(
    env: str,
    command: str,
    arguments: Sequence[str] = (),
    *,
    snapshot: str | None = None,
    json: bool = False,
    to: str | None = None,
    login: Path | None = None,
) -> None:
    """Run a command where the stores are: here on the local target, else in the stack itself.

    What only this machine has, another environment's addresses or a login in a file, it does itself.
    """
    stack = stack_of(env)
    settings, outputs = stack.settings, outputs_of(stack)
    require_backups(env, outputs)
    options = ["--json", "--progress=none"] if json else ["--progress=plain"]
    options += [f"--snapshot={snapshot}"] if snapshot else []
    options += [f"--into={to or env}"] if command == "restore" else []
    if settings.target is not TargetName.local and not to and not login:
        _leave(run_in_stack(stack, command, [*options, command, *arguments], json=json))
        return
    if settings.target is not TargetName.local and settings.backup.repository is None:
        raise UserError(
            f"The repository of '{env}' is in a volume of its {NAME}, which this machine does not reach; set "
            "plinth:backup.repository to one that it reaches, and run `plinth up` and a backup first."
        )
    with ExitStack() as context:
        config = context.enter_context(config_of(settings, outputs, stack.home, stack.version()))
        target = context.enter_context(_stores(to)) if to else None
        _leave(_run_here(with_prune_login(config, login) if login else config, target, [*options, command, *arguments]))


@contextmanager
def _stores(env: str) -> Iterator[Stores]:
    stack = stack_of(env)
    with stores_of(stack.settings, outputs_of(stack), stack.home) as stores:
        yield stores


def _run_here(config: Config, target: Stores | None, arguments: Sequence[str]) -> int:
    """Run a command in a process of its own: root reads no set and no repository, and its account has the rights."""
    with ExitStack() as stack:
        argv = [sys.executable, "-m", "plinth.backup", "--config", str(stack.enter_context(written(config)))]
        if target:
            argv += ["--target", str(stack.enter_context(written(target)))]
        # As root it stays root to start throw-away stores, and does the work as this account.
        environment = fixed_environment({**passed(), VARIABLE: ACCOUNT}, Path.home())
        with terminable():
            return ended(subprocess.Popen([*argv, *arguments], env=environment))


def _leave(code: int) -> None:
    if code:
        raise typer.Exit(code)
