"""An engine whose `plinth` was killed: it goes on with what it has in hand, and nobody hears of it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil

from plinth.deployment.state_lock import Lock, is_running

# How long it may take to write down what it has in hand.
GRACE_S = 10.0


def end_orphans(locks: Iterable[Lock]) -> None:
    """Wait until the engines that hold these locks have ended, where who started them is dead; then end them."""
    for lock in locks:
        if lock.pid is None or not is_running(lock):
            continue
        with suppress(psutil.NoSuchProcess):
            engine = psutil.Process(lock.pid)
            if is_orphan(engine):
                _end(engine)


def is_orphan(process: psutil.Process) -> bool:
    """Whether who started a process is gone: process 1 has it then, or the user's own systemd."""
    parent = process.parent()
    if parent is None:
        return False
    starter = " ".join(parent.cmdline())
    return (parent.pid == 1 or parent.name() == "systemd") and "plinth" not in starter and "pulumi" not in starter


def _end(engine: psutil.Process) -> None:
    try:
        engine.wait(GRACE_S)
    except psutil.TimeoutExpired:
        # Its plugins do the work, and do not see that it is gone.
        plugins = engine.children(recursive=True)
        for process in (engine, *plugins):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # They are dead; where process 1 buries nobody they stay in the list.
        psutil.wait_procs([engine, *plugins], GRACE_S)
