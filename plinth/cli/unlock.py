"""`plinth unlock ENV`."""

from __future__ import annotations

import time

import typer

from plinth.cli.common import Env, Yes, ask, stack_of
from plinth.deployment.pulumi_environment import is_local
from plinth.deployment.state_lock import is_running, locks
from plinth.errors import UserError
from plinth.system.console import console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(unlock)


def unlock(env: Env, yes: Yes = False) -> None:
    """Release the lock of a run that is dead: one of another machine, or one that cannot be read.

    A run of this machine that has ended is found by itself. Example: plinth unlock local
    """
    stack = stack_of(env)
    if not is_local():
        ask(f"Release the lock of '{env}', whoever holds it? A run that is alive would go on beside the next.", yes)
        stack.unlock()
        console.print(f"The lock of '{env}' is released; `plinth refresh {env}` shows what the run left.")
        return
    held = locks(stack.home.backend, env)
    if not held:
        console.print(f"'{env}' is not locked.")
        return
    running = [lock for lock in held if is_running(lock)]
    if running:
        raise UserError(
            f"The run that holds the lock of '{env}' is alive on this machine ({running[0].describe(time.time())}); "
            "wait until it has ended, or end it.",
            exit_code=1,
        )
    for lock in held:
        console.print(f"  {lock.describe(time.time())}")
    ask(f"Release the lock of '{env}'? A run that is alive would go on beside the next.", yes)
    for lock in held:
        lock.path.unlink(missing_ok=True)
    console.print(f"The lock of '{env}' is released; `plinth refresh {env}` shows what the run left.")
