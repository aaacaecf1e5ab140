"""`plinth up|preview|down|refresh ENV`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pulumi import automation

from plinth.cli.common import Env, Yes, ask, stack_of
from plinth.deployment import deployed_servers, lifecycle
from plinth.deployment.automation import forget, is_refusal, last_error, refusal, runs
from plinth.deployment.orphaned_engine import end_orphans
from plinth.deployment.program import check
from plinth.deployment.progress import Progress
from plinth.deployment.pulumi_command import Interrupted
from plinth.deployment.pulumi_environment import forget_backend, is_local, record_backend
from plinth.deployment.stack import Stack
from plinth.deployment.state_lock import held_by_others, locks, release_dead
from plinth.errors import UserError
from plinth.paths import last_deployed, remember_deployed
from plinth.settings.plaintext_secrets import refuse_plain
from plinth.status_files.events import FILE as MARKS
from plinth.status_files.events import mark_deploy
from plinth.system.console import console, line
from plinth.system.managed_process import terminable

if TYPE_CHECKING:
    from plinth.load.verdict import Verdict


# Services whose logs a failed `up` quotes.
LOGS_SHOWN = 2


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, preview, down, refresh):
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
    outputs = stack.outputs()
    before = deployed_servers.before(stack, outputs.get("deployed"))
    check(stack.plan, before)
    _refuse_locked(stack)
    lifecycle.make_sure(stack, outputs, before.get("qdrant_nodes", 0), remove or ())
    console.print(line((f"plinth up {env}", "bold"), f"  {_describe(stack)}"))
    stack.automation  # noqa: B018  # refuses what cannot be opened before anything is recorded
    record_backend(stack.home)
    changes = 0
    for keys in runs(stack, outputs):
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
    # No secret is looked at, and deriving their key takes as long as the rest of the reading.
    before = deployed_servers.before(stack, stack.masked_outputs().get("deployed"))
    check(stack.plan, before)
    growing = lifecycle.show_growth(stack)
    progress = Progress(console, preview=True)
    with _engine(stack, progress, again=f"plinth preview {env}", changes=False):
        stack.automation.preview(on_event=progress.on_event, exclude=growing)
    if not progress.changed():
        console.print("Nothing else would change." if growing else "Nothing would change.")
        return
    console.print(f"{progress.changed()} resource(s) would change.")
    from plinth.cli import collections

    collections.show_changes(stack)


def down(env: Env, yes: Yes = False) -> None:
    """Stop an environment and remove what `up` made, except the data. Example: plinth down local --yes"""
    stack = stack_of(env)
    ask(f"Stop every service of '{env}'? The data stays.", yes)
    lifecycle.must_answer(stack)
    _refuse_locked(stack)
    # A run that failed may have served for long; what it was is gone with the state.
    ran = deployed_servers.before(stack, stack.masked_outputs().get("deployed"), forget=True)
    if ran != (last_deployed(stack.home) or {}):
        remember_deployed(stack.home, ran)
    lifecycle.release(stack)
    progress = Progress(console, down=True)
    with _engine(stack, progress, again=f"plinth down {env}"):
        # A refresh first: a process that died is nothing to stop, and what was begun is made or gone.
        stack.automation.refresh(clear_pending_creates=True)
        stack.automation.destroy(on_event=progress.on_event, run_program=False)
    lifecycle.clear(stack)
    forget(stack)
    forget_backend(stack.home)
    console.print(line((f"'{env}' is down.", "green"), lifecycle.kept(stack)))


def refresh(env: Env) -> None:
    """Compare the state with what runs; says what is gone or drifted. Example: plinth refresh local"""
    stack = stack_of(env)
    lifecycle.must_answer(stack)
    progress = Progress(console)
    with _engine(stack, progress, again=f"plinth refresh {env}"):
        # A carrier that `docker system prune` took has done its work: `up` makes it again, and nothing has drifted.
        stack.automation.refresh(on_event=progress.on_event, exclude=lifecycle.carriers(stack))
    drifted = _drifted(progress)
    if not drifted:
        console.print("Nothing has drifted.")
        return
    console.print(f"{drifted} resource(s) are not as they were deployed; `plinth up {env}` mends them.")
    raise typer.Exit(1)


def _verify(env: str, stack: Stack, found: dict[str, Any]) -> None:
    # What measures takes as long to import as a small deploy takes.
    from plinth.cli import status

    ready = status.show(stack, found)
    if not ready:
        raise UserError(f"'{env}' is deployed and not ready; `plinth status {env}` says what is wrong.", exit_code=1)
    verdict = _gate(stack, found)
    console.print()
    console.print("Endpoints", style="bold")
    for name, value in stack.masked_outputs().items():
        if isinstance(value, dict) and "url" in value:
            console.print(f"  {name:<14} {value.get('dashboard', value['url'])}")
        elif isinstance(value, dict) and "port" in value:
            console.print(f"  {name:<14} {value['host']}:{value['port']}")
    console.print()
    console.print("Next", style="bold")
    for command, what in (
        (f"plinth outputs {env} --show-secrets", "the keys and passwords"),
        (f"plinth status {env}", "is it well?"),
        (f"plinth collections diff {env}", "has a collection drifted from its file?"),
        (f"plinth load {env} --profile smoke", "the load gate again"),
        *([(f"plinth backup run {env}", "a backup now; the schedule makes them too")] if "backup" in found else []),
        (f"plinth down {env}", "stop it; the data stays"),
    ):
        console.print(f"  .venv/bin/{command:<44} {what}")
    _conclude(env, verdict)


def _gate(stack: Stack, outputs: dict[str, Any]) -> Verdict:
    """What the load gate says; void where it could not be carried out, which is no fault of what was deployed."""
    from plinth.cli import load
    from plinth.load.verdict import Verdict

    try:
        report = load.measure(stack, outputs, load.RunOptions())
    except UserError as error:
        if error.exit_code != 3:
            raise
        return Verdict("void", (str(error).removesuffix("."),))
    load.show(report)
    return report.verdict


def _conclude(env: str, verdict: Verdict) -> None:
    """The last line of an `up`: a gate that came to no verdict is no failure of what was deployed, and is said."""
    if verdict.word == "pass":
        return
    console.print()
    again = f"`plinth load {env} --profile smoke`"
    if verdict.word == "void":
        reasons = "; ".join(verdict.reasons)
        console.print(
            line(
                ("Warning: ", "bold yellow"),
                f"'{env}' is deployed and ready, and the load gate came to no verdict on its speed ({reasons}). Run "
                f"{again} when this machine is quiet.",
            )
        )
        return
    raise UserError(
        f"'{env}' is deployed and ready, and misses a target of the load gate: {'; '.join(verdict.reasons)}. Mend the "
        f"cause, then {again}.",
        exit_code=1,
    )


def _describe(stack: Stack) -> str:
    settings = stack.settings
    return f"target {settings.target}, tier {settings.tier}, {settings.qdrant.nodes} Qdrant node(s)"


def _drifted(progress: Progress) -> int:
    return progress.changed()


@contextmanager
def _engine(stack: Stack, progress: Progress, again: str, *, changes: bool = True) -> Iterator[None]:
    """Turn the engine's failures into sentences; release a dead run's lock first.

    ``changes`` is False for a run that changes nothing, and so waits for none and records none.
    """
    if changes:
        _refuse_locked(stack)
    recorded = f"What was done so far is recorded; `{again}` goes on from there." if changes else ""
    try:
        with terminable():
            yield
    except Interrupted as error:
        after = recorded or "Nothing was changed."
        raise UserError(f"Interrupted. {after}", exit_code=error.exit_code) from error
    except automation.ConcurrentUpdateError as error:
        raise UserError(held_by_others(stack.env, locks(stack.home.backend, stack.env)), exit_code=1) from error
    except automation.CommandError as error:
        if is_refusal(str(error)):
            raise refusal(str(error), stack.env, stack.home) from error
        failures = progress.failures or [last_error(str(error))]
        failures += filter(None, (lifecycle.last_words(stack, service) for service in progress.unready[:LOGS_SHOWN]))
        after = recorded or f"Nothing was changed; mend the cause, then `{again}`."
        raise UserError(f"{' '.join(failures)} {after}", exit_code=1) from error


def _refuse_locked(stack: Stack) -> None:
    if not is_local():
        return
    end_orphans(locks(stack.home.backend, stack.env))
    for lock in release_dead(stack.home.backend, stack.env):
        released = f" An earlier run (pid {lock.pid}) died while it held the state; its lock was released."
        console.print(line("  ", ("!", "yellow"), released))
    if left := locks(stack.home.backend, stack.env):
        raise UserError(held_by_others(stack.env, left), exit_code=1)
