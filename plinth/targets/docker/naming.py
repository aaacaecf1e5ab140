"""Names and addresses on the engine: every name carries the stack's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plinth.services.spec import Service

CONFIG = "/etc/plinth"
# Of a load run, and not the stack's own: what carries that and is in no record stands in the way of an `up`.
LOAD_LABEL = "plinth.load"
# Where a container finds the volumes of others that it reads.
READ = "/read"
# Where the kernel counts what containers take, on the engine's machine and in the container that tells it.
CGROUPS, READ_CGROUPS = "/sys/fs/cgroup", f"{READ}/cgroup"
# Within a volume that is filled before the first start: a mount point itself cannot be renamed.
FILLED = "data"


@dataclass(frozen=True)
class Layout:
    """The names of a stack on an engine, as one node sees them."""

    stack: str
    services: Mapping[str, Service]
    node: int = 0

    @property
    def bind(self) -> str:
        """Every address of the container: it is alone in its network namespace, and what is published is the ports'."""
        return "0.0.0.0"  # noqa: S104

    @property
    def clients(self) -> str:
        """The network of everything that may ask."""
        return f"plinth-{self.stack}"

    def peers(self, service: Service) -> str:
        """Return the network that only the nodes of a service are in."""
        return f"plinth-{self.stack}-{service.name}-peers"

    def address(self, service: str, port: str) -> str:
        """`host:port` of a service's first node in the clients' network."""
        return self.addresses(service, port)[0]

    def addresses(self, service: str, port: str) -> Sequence[str]:
        """`host:port` of each node of a service in the clients' network."""
        wanted = self.services[service]
        return [f"plinth-{self.stack}-{name}:{wanted.ports[port]}" for name in node_names(wanted)]

    def peer(self, service: str, node: int, port: str) -> str:
        """`host:port` of a node in the peers' network: an alias that resolves nowhere else."""
        wanted = self.services[service]
        ports = wanted.peers.ports if wanted.peers else {}
        return f"{node_names(wanted)[node]}.peers:{ports[port]}"

    def file(self, _service: str, name: str) -> str:
        """Return the path of a config file in its container."""
        return f"{CONFIG}/{name}".rstrip("/")

    def volume(self, service: str, name: str) -> str:
        """Return the path of a volume's data in its container."""
        wanted = self.services[service]
        path = wanted.program.container.volumes[name]
        return f"{path}/{FILLED}" if wanted.initialise and name == next(iter(wanted.volumes)) else path

    @property
    def output(self) -> None:
        """The engine sends it, see `declared.py`."""

    @property
    def cgroups(self) -> Mapping[str, Any]:
        """Every container by the name of the cgroup above its own."""
        above = {
            replace(self, node=number).cgroup(service): {"service": service.name, "node": node}
            for service in self.services.values()
            for number, node in enumerate(node_names(service))
        }
        return {"directory": READ_CGROUPS, "above": above}

    def takes_url_files(self) -> bool:
        """Return True: an older image is refused."""
        return True

    def read(self, service: str, name: str) -> Mapping[str, str]:
        """Where a volume of each node of another service is mounted, by the node's name."""
        return {node: f"{READ}/{node}/{name}" for node in node_names(self.services[service])}

    def container(self, service: Service) -> str:
        """Return the name of this node's container."""
        return f"plinth-{self.stack}-{node_names(service)[self.node]}"

    def volume_name(self, service: Service, volume: str) -> str:
        """Return the name of one of this node's volumes."""
        return f"{self.container(service)}-{volume}"

    def cgroup(self, service: Service) -> str:
        """Return the name of the cgroup above this node's container.

        Systemd, where it manages the engine's cgroups, requires a slice, and reads each dash as a level of its tree.
        """
        words = ("plinth", self.stack, node_names(service)[self.node])
        return "-".join(word.replace("-", "_") for word in words) + ".slice"

    def networks(self, service: Service) -> Mapping[str, tuple[str, ...]]:
        """Return this node's networks and its aliases there; the service's own name resolves to any of its nodes."""
        name = node_names(service)[self.node]
        found = {self.clients: tuple(sorted({service.name, name}))}
        if is_cluster(service):
            found[self.peers(service)] = (f"{name}.peers",)
        return found


def is_cluster(service: Service) -> bool:
    """Whether a service runs as several nodes."""
    return service.peers is not None and service.peers.count > 1


def node_names(service: Service) -> list[str]:
    """Return a name for each node. A service that may get peers is numbered even alone, so that its volumes stay."""
    if service.peers is None:
        return [service.name]
    return [f"{service.name}-{number}" for number in range(service.peers.count)]
