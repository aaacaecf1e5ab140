"""Execution of the plans of :mod:`plinth.kubernetes.volume_expansion_plan`, before Pulumi re-creates StatefulSets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from plinth.errors import UserError
from plinth.kubernetes.client import Cluster
from plinth.kubernetes.volume_expansion_plan import Expand, Growth, Orphan, Remake, plan, plan_alone

DEADLINE_S = 600.0
INTERVAL_S = 1.0


def plans(cluster: Cluster, wanted: Mapping[str, Mapping[str, int]], alone: Mapping[str, int]) -> list[Growth]:
    """Return the plan that brings each volume to its size; raises all refusals as one sentence.

    ``wanted`` are bytes by StatefulSet and claim template, ``alone`` bytes by claim.
    """
    claims = cluster.claims()
    if not claims:
        return []
    expandable = cluster.expandable()
    default = cluster.default_class() or ""
    known = [replace(claim, storage_class=claim.storage_class or default) for claim in claims]
    found = [
        *(plan(workload, sizes, cluster.templates(workload), known, expandable) for workload, sizes in wanted.items()),
        plan_alone(alone, known, expandable),
    ]
    refusals = [sentence for growth in found for sentence in growth.refusals]
    if refusals:
        raise UserError(" ".join(refusals), exit_code=1)
    return [growth for growth in found if growth.steps]


def grow(cluster: Cluster, growths: list[Growth], say: Callable[[str], None], deadline_s: float = DEADLINE_S) -> None:
    """Expand claims, wait until they are, then delete the StatefulSets without their pods, and unbound claims."""
    for growth in growths:
        for step in growth.steps:
            say(str(step))
            if isinstance(step, Orphan):
                cluster.orphan(step.workload)
            elif isinstance(step, Expand):
                cluster.expand(step.claim, step.wanted)
                _wait(cluster, step, deadline_s)
            elif isinstance(step, Remake):
                cluster.delete_claim(step.claim, step.version)


def _wait(cluster: Cluster, step: Expand, deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while not cluster.is_expanded(step.claim, step.wanted):
        if time.monotonic() > end:
            raise UserError(
                f"The claim {step.claim} has not grown after {deadline_s:.0f} s; `kubectl -n {cluster.namespace} "
                f"describe pvc {step.claim}` says why. Mend the cause and run up again: it goes on from there.",
                exit_code=1,
            )
        time.sleep(INTERVAL_S)
