"""`plinth up|preview|down|refresh|outputs ENV`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from pulumi import automation

from plinth.backup.deployed import elsewhere
from plinth.cli import collections, ground, load, status
from plinth.cli.common import Env, Json, Yes, ask, console, print_json, stack_of
from plinth.cli.output_rows import rows
from plinth.console import line
from plinth.deploy import check
from plinth.encrypted import refuse_plain
from plinth.engine import Stack, break_stale_lock, forget, last_error, runs
from plinth.environment import stack_schema
from plinth.errors import UserError
from plinth.home import last_deployed, remember_deployed
from plinth.monitoring.marks import FILE as MARKS
from plinth.monitoring.marks import mark_deploy
from plinth.progress import Progress


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, preview, down, refresh, outputs, schema):
        app.command()(command)


def up(
    env: Env,
    verify: Annotated[bool, typer.Option(help="End with status and the smoke load gate.")] = True,
    remove: Annotated[
        list[str] | None,
        typer.Option(help="A service that the settings turn off, to be stopped on kubernetes. May be repeated."),
    ] = None,
) -> None:
    """Stand an environment up, or bring it to its settings, and prove that it serves.

    Runs the engine with a refresh, so that what died or drifted is mended too. Example: plinth up local
    """
    began = time.monotonic()
    stack = stack_of(env)
    refuse_plain(stack.root, env)
    deployed = stack.outputs()
    check(stack.settings, stack.root, stack.home, deployed.get("deployed") or last_deployed(stack.home))
    ground.make_sure(stack, deployed, remove or ())
    console.print(line((f"plinth up {env}", "bold"), f"  {_describe(stack)}"))
    changes = 0
    for keys in runs(stack, deployed):
        if keys:
            console.print(f"  another API key: {'letting both in' if keys.beside else 'the old one is let in no more'}")
        progress = Progress(console)
        with _engine(stack, progress, again=f"plinth up {env}"):
            stack.automation.up(refresh=True, on_event=progress.on_event, suppress_outputs=True)
        changes += progress.changed()
    mark_deploy(stack.home.watched / MARKS)
    found = stack.outputs()
    remember_deployed(stack.home, found["deployed"])
    for name, reason in found.get("left_out", {}).items():
        console.print(line("  ", ("!", "yellow"), f" {name} is left out: {reason}."))
    changed = f"{changes} change(s)" if changes else "nothing to change"
    console.print(line(("Deployed", "green"), f" in {time.monotonic() - began:.1f} s, {changed}."), end="\n\n")
    if verify:
        _verify(env, stack, found)


def preview(env: Env) -> None:
    """Show what `up` would change; touches nothing. Example: plinth preview prod"""
    stack = stack_of(env)
    refuse_plain(stack.root, env)
    check(stack.settings, stack.root, stack.home, stack.outputs().get("deployed") or last_deployed(stack.home))
    growing = ground.show_growth(stack)
    progress = Progress(console, preview=True)
    with _engine(stack, progress, again=f"plinth preview {env}"):
        stack.automation.preview(on_event=progress.on_event, exclude=growing)
    if not progress.changed():
        console.print("Nothing else would change." if growing else "Nothing would change.")
        return
    console.print(f"{progress.changed()} resource(s) would change.")
    collections.show_changes(stack)


def down(env: Env, yes: Yes = False) -> None:
    """Stop an environment and remove what `up` made, except the data. Example: plinth down local --yes"""
    stack = stack_of(env)
    ask(f"Stop every service of '{env}'? The data stays.", yes)
    ground.must_answer(stack)
    ground.release(stack)
    progress = Progress(console)
    with _engine(stack, progress, again=f"plinth down {env}"):
        # A refresh first: a process that died is nothing to stop.
        stack.automation.refresh()
        stack.automation.destroy(on_event=progress.on_event, run_program=False)
    ground.clear(stack)
    forget(stack)
    console.print(line((f"'{env}' is down.", "green"), ground.kept(stack)))


def refresh(env: Env) -> None:
    """Compare the state with what runs; says what is gone or drifted. Example: plinth refresh local"""
    stack = stack_of(env)
    ground.must_answer(stack)
    progress = Progress(console)
    with _engine(stack, progress, again=f"plinth refresh {env}"):
        stack.automation.refresh(on_event=progress.on_event)
    drifted = _drifted(progress)
    if not drifted:
        console.print("Nothing has drifted.")
        return
    console.print(f"{drifted} resource(s) are not as they were deployed; `plinth up {env}` mends them.")
    raise typer.Exit(1)


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


def schema() -> None:
    """Print the settings' JSON schema, for an editor. Example: plinth schema > stacks/settings.schema.json"""
    print_json(stack_schema())


def _verify(env: str, stack: Stack, found: dict[str, Any]) -> None:
    ready = status.show(stack, found)
    if not ready:
        raise UserError(f"'{env}' is deployed and not ready; `plinth status {env}` says what is wrong.", exit_code=1)
    report = load.measure(stack, found, "smoke")
    load.show(report)
    if report.verdict.word == "void":
        console.print(
            f"'{env}' is up and well; only its speed is not proven: repeat the load gate when this machine is quiet."
        )
    console.print()
    console.print("Endpoints", style="bold")
    for name, value in stack.masked_outputs().items():
        if isinstance(value, dict) and "url" in value:
            console.print(f"  {name:<14} {value.get('dashboard', value['url'])}")
        elif isinstance(value, dict) and "port" in value:
            console.print(f"  {name:<14} {value['host']}:{value['port']}")
    backs_up = "backup" in found and not elsewhere(env, stack.settings, "run")
    console.print()
    console.print("Next", style="bold")
    for command, what in (
        (f"plinth outputs {env} --show-secrets", "the keys and passwords"),
        (f"plinth status {env}", "is it well?"),
        (f"plinth collections diff {env}", "has a collection drifted from its file?"),
        (f"plinth load {env} --profile smoke", "the load gate again"),
        *([(f"plinth backup run {env}", "a backup now; the schedule makes them too")] if backs_up else []),
        (f"plinth down {env}", "stop it; the data stays"),
    ):
        console.print(f"  .venv/bin/{command:<44} {what}")
    if report.verdict.exit_code:
        raise typer.Exit(report.verdict.exit_code)


def _describe(stack: Stack) -> str:
    settings = stack.settings
    return f"target {settings.target}, tier {settings.tier}, {settings.qdrant.nodes} Qdrant node(s)"


def _drifted(progress: Progress) -> int:
    return progress.changed()


@contextmanager
def _engine(stack: Stack, progress: Progress, again: str) -> Iterator[None]:
    """Turn the engine's failures into sentences; release a dead run's lock first."""
    released = break_stale_lock(stack)
    if released:
        console.print(line("  ", ("!", "yellow"), f" {released}"))
    try:
        yield
    except automation.ConcurrentUpdateError as error:
        raise UserError(
            f"Another run is changing '{stack.env}' right now; wait until it has ended, then `{again}`.", exit_code=1
        ) from error
    except automation.CommandError as error:
        failures = progress.failures or [last_error(str(error))]
        raise UserError(
            f"{' '.join(failures)} What was done so far is recorded; `{again}` goes on from there.", exit_code=1
        ) from error
