"""What lies under an environment on Kubernetes: what must be so before a deploy, and what a `down` leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from plinth.engine import Stack
from plinth.errors import UserError
from plinth.kubernetes import before
from plinth.kubernetes.grow import grow, plans
from plinth.kubernetes.growth import Growth, Orphan
from plinth.kubernetes.leaving import refusal, setting
from plinth.kubernetes.ways import cluster_of
from plinth.targets.choose import kubernetes_target
from plinth.targets.kubernetes.names import object_name

STATEFUL = ("qdrant", "postgres", "redis", "prometheus", "alertmanager", "grafana")


class Leaving(NamedTuple):
    """What turns a service off, and the StatefulSet that the engine has of it."""

    setting: str
    urn: str


def make_sure(stack: Stack) -> None:
    """Refuse a deploy that the cluster stands in the way of."""
    recorded = bool(stack.ids("kubernetes:core/v1:Namespace"))
    before.make_sure(cluster_of(stack.settings), stack.env, recorded=recorded)


def must_answer(stack: Stack) -> None:
    """Refuse where the cluster does not answer."""
    cluster_of(stack.settings).version()


def growths(stack: Stack) -> list[Growth]:
    """How the volumes of the running StatefulSets come to their sizes; refuses what cannot be."""
    target = kubernetes_target(stack.settings, stack.root, stack.home)
    return plans(cluster_of(stack.settings), target.claims(), target.claims_alone())


def made_again(stack: Stack, found: list[Growth]) -> list[str]:
    """The URNs of the StatefulSets that growing makes again."""
    names = {step.workload for growth in found for step in growth.steps if isinstance(step, Orphan)}
    return [urn for urn in stack.urns("kubernetes:apps/v1:StatefulSet") if urn.rpartition("/")[2] in names]


def leaving(stack: Stack) -> dict[str, Leaving]:
    """The services that run as StatefulSets and that the settings turn off, by name."""
    wanted = kubernetes_target(stack.settings, stack.root, stack.home).claims()
    recorded = {urn.rpartition("/")[2]: urn for urn in stack.urns("kubernetes:apps/v1:StatefulSet")}
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
    grow(cluster_of(stack.settings), growths(stack), say)


def kept(stack: Stack) -> str:
    """Where the data is that a `down` left, as a sentence; empty where there is none."""
    cluster = cluster_of(stack.settings)
    claims = cluster.claims()
    if not claims:
        return ""
    return (
        f" Its data is kept in {len(claims)} volume claims of the namespace {cluster.namespace} and its secrets in "
        f"{stack.home.data}; to start afresh delete both: kubectl delete namespace {cluster.namespace}."
    )
