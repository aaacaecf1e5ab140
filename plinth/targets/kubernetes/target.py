"""Target `kubernetes`: charts/ in a namespace of a cluster, with pulumi-kubernetes.

`names.py`, `charts.py` and `values.py` say what is to be, as plain data; `resources.py` makes Pulumi resources of it.
What is asked of the cluster beside Pulumi is in :mod:`plinth.kubernetes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from plinth.errors import UserError
from plinth.kubernetes.port_forward import LOOPBACK, Route
from plinth.kubernetes.rolling_update_plan import Rolled
from plinth.kubernetes.volume_expansion_plan import GIB
from plinth.resources.base import to_json
from plinth.services import Service
from plinth.services import backup as bk
from plinth.services import gateway as gw
from plinth.services.project_files import ProjectFiles
from plinth.services.render import files
from plinth.services.secrets import CHECKSUM_KEY
from plinth.settings import Settings
from plinth.targets.base import Node, Placed
from plinth.targets.content_digest import keyed
from plinth.targets.images import Images, is_built_here, repository
from plinth.targets.kubernetes import backup_values, monitoring_values, resources
from plinth.targets.kubernetes.charts import CHARTS, NOT_HERE
from plinth.targets.kubernetes.naming import (
    BACKUP,
    Layout,
    chart_of,
    claims_of,
    managed_address,
    object_name,
    pod_labels,
    pods,
)
from plinth.targets.kubernetes.store_values import SCRATCH_LIMIT_GIB

# The mark of a secret that a preview cannot know, for it is only to be generated.
NOT_YET = "not-yet"
# A backup, a check, a drill, and one that a person starts.
RUNS = 4
# One run of the load gate.
LOAD_GIB = 1


class KubernetesTarget(Layout):
    """Turns services into charts."""

    def __init__(
        self, stack: str, settings: Settings, project: ProjectFiles, images: Images, services: Sequence[Service]
    ) -> None:
        """Find every chart first: one that is missing is named before anything is touched."""
        self.left_out = _left_out(settings, stack, images, services)
        super().__init__(
            stack,
            settings.kubernetes.namespace,
            {service.name: service for service in services if service.name not in self.left_out},
            settings.managed,
            settings.kubernetes.forward_offset,
        )
        self._settings, self._project, self._images = _without(settings, self.left_out), project, images
        self._made: dict[str, tuple[kubernetes.helm.v4.Chart, pulumi.Output[str]]] = {}
        for chart in self.charts():
            directory = project.root / "charts" / chart
            if not (directory / "Chart.yaml").is_file():
                raise UserError(
                    f"There is no chart in {directory}; take the whole clone, charts/ is part of it, or "
                    "leave out what it deploys."
                )

    def serving(self, service: str) -> str:
        """The image of a service, without its tag; the address of one that someone else runs."""
        elsewhere = managed_address(self.managed, service, "http")
        return elsewhere or repository(self._images.reference(self.services[service].program))

    def nodes(self, service: Service) -> Sequence[Node]:
        """The nodes of a service."""
        if service.peers is None:
            return [Node(service.name)]
        return [Node(pod, number) for number, pod in enumerate(pods(service))]

    def reach(self, service: str, port: str, node: int = 0) -> str:
        """`host:port` of this machine that leads to a node, or where someone else runs the service."""
        return managed_address(self.managed, service, port) or f"{LOOPBACK}:{self.local_port(service, port, node)}"

    def hosts(self, service: str) -> Sequence[str]:
        """The names of the Service, of each pod, and where this machine's ports are."""
        name, domain = object_name(service), f"{self.namespace}.svc"
        own = [name, *self.pod_hosts(self.services[service])]
        suffixes = ("", f".{self.namespace}", f".{domain}", f".{domain}.cluster.local")
        return sorted({f"{host}{suffix}" for host in own for suffix in suffixes} | {LOOPBACK, "localhost"})

    def place(
        self, service: Service, node: Node, secrets: Mapping[str, pulumi.Output[str]], needs: Sequence[pulumi.Resource]
    ) -> Placed:
        """Declare the chart that a node belongs to, unless it is declared already."""
        name = chart_of(service.name)
        if name not in self._made:
            self._made[name] = self._chart(name, secrets, needs)
        made, instance = self._made[name]
        return Placed(node.name, made, instance, self._rolled(service), answers=not _is_scheduled(service))

    def charts(self) -> list[str]:
        """The charts that are deployed, in the order of their services."""
        return list(dict.fromkeys(chart_of(name) for name in self.services))

    def values(self, chart: str) -> dict[str, Any]:
        """The values of a chart: a pure function of the settings."""
        return CHARTS[chart].values(self._settings, self, self._images, self._project)

    def secrets(self) -> dict[str, Mapping[str, str]]:
        """Every Secret of the charts: which of the environment's secrets is under which key."""
        return {name: held for chart in self.charts() for name, held in CHARTS[chart].secrets(self._settings).items()}

    def routes(self) -> list[Route]:
        """The ports of this machine that lead to every port of every service."""
        return [
            Route(
                self.local_port(service.name, port, node.number),
                self.selector(service) if service.peers is None else f"statefulset.kubernetes.io/pod-name={node.name}",
                number,
            )
            for service in self.services.values()
            if not _is_scheduled(service)
            for node in self.nodes(service)
            for port, number in service.ports.items()
        ]

    def selector(self, service: Service) -> str:
        """The labels of a service's pods."""
        chart = chart_of(service.name)
        labels = pod_labels(chart, CHARTS[chart].components[service.name])
        return ",".join(f"{key}={value}" for key, value in labels.items())

    def claims(self) -> dict[str, dict[str, int]]:
        """The volume claims of each StatefulSet, bytes by template."""
        return {
            object_name(service.name): {volume: gib * GIB for volume, gib in claims_of(service).items()}
            for service in self.services.values()
            if claims_of(service) and not _is_scheduled(service)
        }

    def claims_alone(self) -> dict[str, int]:
        """The volume claims that belong to no StatefulSet, bytes by name."""
        return backup_values.claims(self._settings, self)

    def ephemeral_gib(self) -> int:
        """What all pods may write on their machines' own disks, GiB: each, one in its place, and a load run."""
        pods = sum(RUNS if _is_scheduled(each) else self._pods(each) for each in self.services.values())
        beside = int(monitoring_values.lends_grafana(self.services))
        return 2 * SCRATCH_LIMIT_GIB * (pods + beside) + LOAD_GIB

    def _pods(self, service: Service) -> int:
        """How many pods of a service there may be at once, but for one in another's place."""
        wanted = self._settings.gateway
        alike = {gw.NAME: wanted.replicas_max or wanted.replicas, gw.WORKER: wanted.worker_replicas}
        return alike.get(service.name, len(self.nodes(service)))

    @cached_property
    def _provider(self) -> kubernetes.Provider:
        wanted = self._settings.kubernetes
        return resources.provider(self.stack, wanted.kubeconfig, wanted.context)

    @cached_property
    def _namespace(self) -> kubernetes.core.v1.Namespace:
        return resources.namespace(self.namespace, self.stack, self._provider)

    @cached_property
    def _bounds(self) -> list[pulumi.Resource]:
        return resources.bounds(self.ephemeral_gib(), self._namespace, self._provider)

    def _chart(
        self, name: str, secrets: Mapping[str, pulumi.Output[str]], needs: Sequence[pulumi.Resource]
    ) -> tuple[kubernetes.helm.v4.Chart, pulumi.Output[str]]:
        """A chart behind its Secrets, and what changes whenever its pods are started anew."""
        chart, values = CHARTS[name], self.values(name)
        wanted = {
            known: {key: self._secret(secret, secrets) for key, secret in contents.items()}
            for known, contents in chart.secrets(self._settings).items()
        }
        # A changed Secret starts no pod anew by itself.
        marks = {
            f"{known}/{key}": self._mark(value, secrets[CHECKSUM_KEY])
            for known, contents in wanted.items()
            for key, value in contents.items()
        }
        behind = [resources.secret(known, held, self._namespace, self._provider) for known, held in wanted.items()]
        made = resources.chart(
            name,
            self._project.root / "charts" / name,
            {**values, **chart.marked(marks)},
            self._namespace,
            self._provider,
            [*self._bounds, *behind, *needs, *(self._made[other][0] for other in chart.behind if other in self._made)],
            awaited=chart.awaited and values.get("updateStrategy", {}).get("partition", 0) == 0,
        )
        # With what the chart made, so that whoever needs the service goes before its objects do.
        instance = pulumi.Output.all(to_json(values), pulumi.Output.all(**marks), made.resources).apply(
            lambda all_: f"{all_[0]} {to_json(all_[1])}"
        )
        return made, instance

    @staticmethod
    def _mark(value: pulumi.Output[str], key: pulumi.Output[str]) -> pulumi.Output[str]:
        made = pulumi.Output.all(value, key).apply(lambda known: keyed(*known))
        return resources.known_or(pulumi.Output.unsecret(made), NOT_YET)

    def _secret(self, name: str, secrets: Mapping[str, pulumi.Output[str]]) -> pulumi.Output[str]:
        """A secret of the environment, or a file of a service that has some in it."""
        service, _, file = name.partition("/")
        if not file:
            return secrets[name]
        return pulumi.Output.secret(
            pulumi.Output.all(**secrets).apply(
                lambda values: files(self.services[service], self, values, self._project.root)[file]
            )
        )

    def _rolled(self, service: Service) -> Rolled | None:
        if service.peers is None or service.peers.count == 1:
            return None
        wanted = self._settings.kubernetes
        return Rolled(
            wanted.kubeconfig, wanted.context, self.namespace, object_name(service.name), self.selector(service)
        )


def _left_out(settings: Settings, stack: str, images: Images, wanted: Sequence[Service]) -> dict[str, str]:
    """The services that are wanted and not deployed, each with why."""
    names = {service.name for service in wanted}
    found = {name: why for name, why in NOT_HERE.items() if name in names}
    for service in wanted:
        reference = images.reference(service.program)
        if service.optional and is_built_here(reference):
            found[service.name] = (
                f"no registry has its image {reference}; name one of yours in plinth:kubernetes.images."
                f"{service.program.image}, make it with `plinth images build {stack}`, push it, and run up again"
            )
    if settings.backup.enabled and bk.NAME not in names:
        found[bk.NAME] = "someone else runs every store, and has its backups"
    return found


def _without(settings: Settings, left_out: Mapping[str, str]) -> Settings:
    """The settings as charts go by them: what is left out is off for them."""
    if gw.NAME not in left_out:
        return settings
    return settings.model_copy(update={"gateway": settings.gateway.model_copy(update={"enabled": False})})


def _is_scheduled(service: Service) -> bool:
    """Whether its pods come by schedule and go again, so that nobody is there to ask."""
    return chart_of(service.name) == BACKUP
