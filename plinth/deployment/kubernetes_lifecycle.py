"""What lies under an environment on Kubernetes: what must be so before a deploy, and what a `down` leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.kubernetes import preflight
from plinth.kubernetes.removed_services import refusal, setting
from plinth.kubernetes.volume_expansion import grow, plans
from plinth.kubernetes.volume_expansion_plan import Growth, Orphan, Remake
from plinth.targets.kubernetes.charts import CHARTS
from plinth.targets.kubernetes.naming import object_name
from plinth.targets.kubernetes.resources import CLAIM, STATEFUL_SET

INSTANCE = "app.kubernetes.io/instance"
# Longer than any pod is given to stop, and than a machine that is away takes to be noticed.
ENDING_DEADLINE_S, INTERVAL_S = 420.0, 1.0
STATEFUL = ("qdrant", "postgres", "redis", "prometheus", "alertmanager", "grafana")


class Leaving(NamedTuple):
    """What turns a service off, and the StatefulSet that the engine has of it."""

    setting: str
    urn: str


def make_sure(stack: Stack) -> None:
    """Refuse a deploy that the cluster stands in the way of."""
    recorded = bool(stack.recorded(["kubernetes:core/v1:Namespace"])[0])
    preflight.make_sure(stack.cluster, stack.env, recorded=recorded)


def must_answer(stack: Stack) -> None:
    """Refuse where the cluster does not answer."""
    stack.cluster.version()


def growths(stack: Stack) -> list[Growth]:
    """How the volumes of the running StatefulSets come to their sizes; refuses what cannot be."""
    target = stack.plan.kubernetes_target
    return plans(stack.cluster, target.claims(), target.claims_alone())


def made_again(stack: Stack, found: list[Growth]) -> list[str]:
    """The URNs of the StatefulSets and claims that growing makes again."""
    steps = [step for growth in found for step in growth.steps]
    names = {
        STATEFUL_SET: {step.workload for step in steps if isinstance(step, Orphan)},
        CLAIM: {step.claim for step in steps if isinstance(step, Remake)},
    }
    return [urn for kind, among in names.items() for urn in stack.urns(kind) if urn.rpartition("/")[2] in among]


def leaving(stack: Stack) -> dict[str, Leaving]:
    """The services that run as StatefulSets and that the settings turn off, by name."""
    wanted = stack.plan.kubernetes_target.claims()
    recorded = {urn.rpartition("/")[2]: urn for urn in stack.urns(STATEFUL_SET)}
    return {
        service: Leaving(setting(stack.settings, service), recorded[workload])
        for service in STATEFUL
        if (workload := object_name(service)) in recorded and workload not in wanted
    }


def release(stack: Stack, named: Sequence[str]) -> None:
    """Let the engine stop the services that the person named, and nothing else; refuse as one sentence."""
    found = leaving(stack)
    refused = refusal(stack.env, {service: about.setting for service, about in found.items()}, named)
    if refused:
        raise UserError(refused)
    stack.unprotect([found[service].urn for service in named])


def grow_volumes(stack: Stack, say: Callable[[str], None]) -> None:
    """Carry that out."""
    grow(stack.cluster, growths(stack), say)


def wait_until_ended(stack: Stack, say: Callable[[str], None], deadline_s: float = ENDING_DEADLINE_S) -> None:
    """Wait for the pods of what was removed: an `up` beside them would meet their volumes and addresses."""
    cluster = stack.cluster
    end = time.monotonic() + deadline_s
    shown = 0
    while pods := sorted(pod.metadata.name for chart in CHARTS for pod in cluster.pods(f"{INSTANCE}={chart}")):
        if len(pods) != shown:
            say(f"waiting for {len(pods)} pod(s) to end: {', '.join(pods)}")
            shown = len(pods)
        if time.monotonic() > end:
            raise UserError(
                f"{', '.join(pods)} did not end within {deadline_s:.0f} s, so '{stack.env}' is not down; "
                f"`kubectl -n {cluster.namespace} describe pod {pods[0]}` says why, then run `plinth down "
                f"{stack.env}` again.",
                exit_code=1,
            )
        time.sleep(INTERVAL_S)


def kept(stack: Stack) -> str:
    """Where the data is that a `down` left, as a sentence; empty where there is none."""
    cluster = stack.cluster
    claims = cluster.claims()
    if not claims:
        return ""
    return (
        f" Its data is kept in {len(claims)} volume claims of the namespace {cluster.namespace} and its secrets in "
        f"{stack.home.data}; to start afresh delete both: kubectl delete namespace {cluster.namespace}."
    )
