"""The open port-forwards into an environment's cluster, one set per process."""

from __future__ import annotations

from collections.abc import Sequence

from plinth.kubernetes.client import Cluster
from plinth.kubernetes.port_forward import Forward, Route
from plinth.paths import Home
from plinth.settings import Settings

_OPEN: set[tuple[str, str]] = set()


def cluster_of(settings: Settings) -> Cluster:
    """Return the client of an environment's cluster and namespace."""
    wanted = settings.kubernetes
    return Cluster(wanted.kubeconfig, wanted.context, wanted.namespace)


def open_ways(cluster: Cluster, home: Home, routes: Sequence[Route]) -> None:
    """Open port-forwards from this machine into the cluster, unless this process has done so."""
    key = (str(home.base), home.env)
    if key in _OPEN:
        return
    Forward(cluster, routes, home.run / "forward").open()
    _OPEN.add(key)
