"""Checks before a deploy: the API answers, this account has the permissions, the namespace is this stack's."""

from __future__ import annotations

from collections.abc import Sequence

from plinth.errors import UserError
from plinth.kubernetes.client import STACK_LABEL, Cluster

# The permissions needed in addition to those for Pulumi's resources: verb, group and resource.
RIGHTS: Sequence[tuple[str, str, str]] = (
    ("list", "", "pods"),
    ("create", "", "pods/portforward"),
    ("patch", "", "persistentvolumeclaims"),
    ("create", "", "secrets"),
    ("delete", "apps", "statefulsets"),
    ("patch", "apps", "statefulsets"),
)


def make_sure(cluster: Cluster, stack: str, *, recorded: bool) -> None:
    """Raise :class:`UserError` for what prevents a deploy.

    ``recorded`` is whether this environment's state has the namespace.
    """
    cluster.version()
    labels = cluster.namespace_labels()
    if labels is not None:
        _refuse_other(cluster.namespace, stack, labels.get(STACK_LABEL), recorded=recorded)
    missing = [f"{verb} {resource}" for verb, group, resource in RIGHTS if not cluster.may(verb, group, resource)]
    if missing:
        raise UserError(
            f"This account may not {', '.join(missing)} in the namespace {cluster.namespace} of {cluster.server}; ask "
            "who runs the cluster for these rights, or name another context with plinth:kubernetes.context.",
            exit_code=1,
        )


def _refuse_other(namespace: str, stack: str, owner: str | None, *, recorded: bool) -> None:
    if owner not in (None, stack):
        raise UserError(
            f"The namespace {namespace} belongs to the environment '{owner}'; set plinth:kubernetes.namespace to "
            "another one, or name another cluster with plinth:kubernetes.context."
        )
    if owner is None and not recorded:
        raise UserError(
            f"The namespace {namespace} is there and no environment of Plinth made it; set "
            "plinth:kubernetes.namespace to another one, or, if it is empty and meant for this, hand it over: "
            f"kubectl label namespace {namespace} {STACK_LABEL}={stack}."
        )
