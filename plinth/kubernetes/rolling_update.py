"""Updating the pods of a StatefulSet one by one, as planned by :mod:`plinth.kubernetes.rolling_update_plan`."""

from __future__ import annotations

import time
from collections.abc import Callable

from plinth.errors import UserError
from plinth.kubernetes.client import Cluster
from plinth.kubernetes.rolling_update_plan import Done, Lower, Rolled, Wait, Workload, next_step

INTERVAL_S = 1.0


def roll(cluster: Cluster, rolled: Rolled, lacking: Callable[[], str | None], deadline_s: float) -> None:
    """Bring every pod to the new revision; raise when one is not ready within its deadline, in seconds.

    ``lacking`` returns why the nodes' own cluster is not ready.
    """
    touched = False
    try:
        end = time.monotonic() + deadline_s
        while True:
            seen = cluster.workload(rolled.workload, rolled.selector)
            step = _step(rolled, seen, lacking)
            if isinstance(step, Done):
                return
            if isinstance(step, Lower):
                touched = True
                cluster.set_partition(rolled.workload, step.partition)
                end = time.monotonic() + deadline_s
                continue
            if time.monotonic() > end:
                raise UserError(
                    f"{rolled.workload} is not settled after {deadline_s:.0f} s: {step.reason}; "
                    "no further pod is touched. Mend the cause and run up again.",
                    exit_code=1,
                )
            time.sleep(INTERVAL_S)
    finally:
        if touched and seen is not None:
            cluster.set_partition(rolled.workload, seen.replicas)


def _step(rolled: Rolled, seen: Workload | None, lacking: Callable[[], str | None]) -> Wait | Lower | Done:
    if seen is None:
        return Wait(f"there is no StatefulSet {rolled.workload} in {rolled.namespace}")
    step = next_step(seen, None)
    # The nodes are queried last, and only when it matters: each query goes to all of them.
    return step if isinstance(step, Wait) else next_step(seen, lacking())
