"""Ways to a deployed environment from this machine."""

from __future__ import annotations

from plinth.deployment.stack import Stack
from plinth.settings import TargetName


def reach(stack: Stack) -> None:
    """Make the addresses of a deployed environment reachable from this machine, while this process runs."""
    if stack.settings.target is TargetName.kubernetes:
        from plinth.kubernetes.open_forwards import open_ways

        open_ways(stack.cluster, stack.home, stack.plan.kubernetes_target.routes())
