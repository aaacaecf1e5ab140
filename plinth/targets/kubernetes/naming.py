"""What things are called in the cluster and where they are reached: from other pods, and from this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from plinth.programs.qdrant import AUDIT
from plinth.services.backup import NAME as BACKUPS
from plinth.services.exporters import STATE
from plinth.services.gateway import NAME as GATEWAY
from plinth.services.gateway import WORKER
from plinth.services.spec import Service
from plinth.settings import Managed
from plinth.settings.targets import NODE_PORT_STEP

CONFIG = "/etc/plinth"
# The chart of the backups, which its objects are called after.
BACKUP = "backup"
STATE_CLAIM = f"{BACKUP}-state"


@dataclass(frozen=True)
class Layout:
    """The names of a stack in its namespace, as one node sees them."""

    stack: str
    namespace: str
    services: Mapping[str, Service]
    managed: Managed
    offset: int = 0
    node: int = 0

    @property
    def bind(self) -> str:
        """Every address of the pod: who reaches it is the network policy's."""
        return "0.0.0.0"  # noqa: S104

    @property
    def output(self) -> str | None:
        """What pods print is the cluster's own collector's."""
        return None

    @property
    def cgroups(self) -> None:
        """What pods take is told by the cluster."""

    def takes_url_files(self) -> bool:
        """An older image is refused."""
        return True

    def read(self, service: str, name: str) -> Mapping[str, str]:
        """A volume of another service by its node: here nobody reads one."""
        return {service: self.volume(service, name)}

    def address(self, service: str, port: str) -> str:
        """`host:port` of a service for other pods, at whichever of its nodes."""
        elsewhere = managed_address(self.managed, service, port)
        return elsewhere or f"{object_name(service)}.{self.namespace}.svc:{self.services[service].ports[port]}"

    def addresses(self, service: str, port: str) -> Sequence[str]:
        """`host:port` of each node of a service."""
        wanted = self.services[service]
        if wanted.peers is None:
            return [self.address(service, port)]
        return [f"{host}.{self.namespace}.svc:{wanted.ports[port]}" for host in self.pod_hosts(wanted)]

    def peer(self, service: str, node: int, port: str) -> str:
        """`host:port` of a node for its peers."""
        wanted = self.services[service]
        ports = wanted.peers.ports if wanted.peers else {}
        return f"{self.pod_hosts(wanted)[node]}:{ports[port]}"

    def file(self, _service: str, name: str) -> str:
        """The path of a config file in its pod."""
        return f"{CONFIG}/{name}".rstrip("/")

    def volume(self, service: str, name: str) -> str:
        """The path of a volume in its pod; one without a claim of its own lies in the first."""
        wanted = self.services[service]
        paths, first = wanted.program.container.volumes, next(iter(wanted.volumes))
        return paths[name] if name in claims_of(wanted) else f"{paths[first]}/{name}"

    def pod_hosts(self, service: Service) -> list[str]:
        """The name of each node's pod, by the service that gives them names."""
        name = object_name(service.name)
        return [f"{pod}.{name}-headless" for pod in pods(service)]

    def local_port(self, service: str, port: str, node: int = 0) -> int:
        """The port of this machine that leads to a node."""
        return self.services[service].ports[port] + self.offset + node * NODE_PORT_STEP


def object_name(service: str) -> str:
    """The name of a service's workload and of its Service object."""
    chart = chart_of(service)
    return service if service.startswith(chart) else f"{chart}-{service}"


def chart_of(service: str) -> str:
    """The chart that deploys a service."""
    if service == BACKUPS:
        return BACKUP
    if service in (GATEWAY, WORKER):
        return GATEWAY
    return service if service in ("qdrant", "postgres", "redis") else "monitoring"


def pod_labels(chart: str, component: str) -> dict[str, str]:
    """What selects the pods of a part of a chart."""
    labels = {"name": chart, "instance": chart, "component": component}
    return {f"app.kubernetes.io/{key}": value for key, value in labels.items()}


def claims_of(service: Service) -> Mapping[str, int]:
    """The volumes that have claims of their own, GiB by name.

    The audit log lies with Qdrant's storage, the gateway's goes to the output; the state that the exporter reads is in
    the backups' claim.
    """
    return {name: gib for name, gib in service.volumes.items() if name not in (AUDIT, STATE)}


def pods(service: Service) -> list[str]:
    """The pods of a service that runs as a StatefulSet."""
    return [f"{object_name(service.name)}-{number}" for number in range(service.peers.count if service.peers else 1)]


def managed_address(managed: Managed, service: str, port: str) -> str | None:
    """`host:port` of a store that someone else runs; None for one that is deployed."""
    urls = {
        "qdrant": managed.qdrant_grpc_url if port == "grpc" else managed.qdrant_url,
        "postgres": managed.postgres_url,
        "redis": managed.redis_url,
    }
    url = urls.get(service)
    if url is None:
        return None
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}"
