"""What lies under an environment on Kubernetes: what must be so before a deploy, and what a `down` leaves."""

from __future__ import annotations

from collections.abc import Callable

from plinth.engine import Stack
from plinth.kubernetes import before
from plinth.kubernetes.grow import grow, plans
from plinth.kubernetes.growth import Growth, Orphan
from plinth.kubernetes.ways import cluster_of
from plinth.targets.choose import kubernetes_target


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
