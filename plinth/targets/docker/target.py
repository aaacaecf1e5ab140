"""Target `docker`: every service a container, one node or a cluster, with pulumi-docker.

`names.py` and `declared.py` say what is to be, as plain data; `resources.py` makes Pulumi resources of it;
`daemon.py` asks the engine itself, before anything is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import pulumi
import pulumi_docker as docker

from plinth.services import Service
from plinth.services.render import files
from plinth.targets.base import Node, Placed
from plinth.targets.content_digest import digest
from plinth.targets.docker import resources
from plinth.targets.docker.address import SETTING, Address
from plinth.targets.docker.container_spec import Options, declare, outside
from plinth.targets.docker.naming import Layout, is_cluster, node_names
from plinth.targets.images import Images, repository

Config = tuple[pulumi.Output[str], pulumi.Resource]
ANY = ("0.0.0.0", "::", "")  # noqa: S104


class DockerTarget(Layout):
    """Turns services into containers."""

    def __init__(
        self,
        stack: str,
        root: Path,
        images: Images,
        services: Sequence[Service],
        options: Options,
        address: Address | None = None,
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        """``address`` is the engine's, the plugin's default when absent; ``left_out`` are reasons by service."""
        super().__init__(stack, {service.name: service for service in services})
        self._root = root
        self._options = options
        self._images = images
        self._address = address
        self._made: dict[str, docker.RemoteImage] = {}
        self._networks: dict[str, docker.Network] = {}
        self._volumes: dict[str, docker.Volume] = {}
        self._config: dict[str, Config] = {}
        self.left_out: dict[str, str] = dict(left_out or {})

    def serving(self, service: str) -> str:
        """Return the image of a service, without its tag: another version reads the same data."""
        return repository(self._images.reference(self.services[service].program))

    def nodes(self, service: Service) -> Sequence[Node]:
        """Return the nodes of a service, in the order in which they start and are changed."""
        return [Node(name, number) for number, name in enumerate(node_names(service))]

    def reach(self, service: str, port: str, node: int = 0) -> str:
        """`host:port` of a published port, from this machine."""
        published_on = self._options.address(service)
        host = "127.0.0.1" if published_on in ANY else published_on
        return f"{host}:{outside(self.services[service].ports[port], node)}"

    def hosts(self, service: str) -> Sequence[str]:
        """Return the containers' names and aliases, and the addresses of their published ports."""
        wanted = self.services[service]
        published_on = self._options.address(service)
        names = {"127.0.0.1", "localhost"} | (set() if published_on in ANY else {published_on})
        for node in self.nodes(wanted):
            layout = Layout(self.stack, self.services, node.number)
            names.add(layout.container(wanted))
            names |= {alias for aliases in layout.networks(wanted).values() for alias in aliases}
        return sorted(names)

    def place(
        self, service: Service, node: Node, secrets: Mapping[str, pulumi.Output[str]], needs: Sequence[pulumi.Resource]
    ) -> Placed:
        """Declare the container of a node, with what it needs: image, networks, volumes, config files."""
        names = Layout(self.stack, self.services, node.number)
        declared = declare(service, names, self._options)
        image = self._image(service)
        behind: list[pulumi.Resource] = [self._network(service, name) for name in declared.networks]
        for mount, kind in zip(declared.mounts[: len(service.volumes)], service.volumes, strict=True):
            self._volumes[mount.volume] = resources.volume(
                mount.volume, f"{node.name}-{kind}", declared.labels, self._provider, keep=True
            )
        # Those of other services among them: a container that came first would make a volume that nobody knows.
        behind += [self._volumes[mount.volume] for mount in declared.mounts if mount.volume in self._volumes]
        config = None
        if service.files or service.secret_files:
            config, carrier = self._config_volume(service, names, secrets, image)
            behind.append(carrier)
        container = resources.container(declared, node.name, image, config, self._provider, [*behind, *needs])
        return Placed(node.name, container, container.id)

    @cached_property
    def _provider(self) -> docker.Provider:
        address = self._address
        # The plugin finds DOCKER_HOST and the usual socket by itself, and no context that is only active.
        if address is None or not (address.is_context or address.source == SETTING):
            return docker.Provider("docker")
        return docker.Provider("docker", host=address.host)

    def _image(self, service: Service) -> pulumi.Output[str]:
        key = service.program.image
        if key not in self._made:
            reference = self._images.reference(service.program)
            self._made[key] = resources.image(reference, f"image-{key}", self._provider)
        return self._made[key].image_id

    def _network(self, service: Service, name: str) -> docker.Network:
        if name not in self._networks:
            peers = is_cluster(service) and name == self.peers(service)
            self._networks[name] = resources.network(
                name,
                f"{service.name}-peers" if peers else "clients",
                {"plinth.stack": self.stack},
                self._provider,
                internal=peers,
            )
        return self._networks[name]

    def _config_volume(
        self,
        service: Service,
        names: Layout,
        secrets: Mapping[str, pulumi.Output[str]],
        image: pulumi.Output[str],
    ) -> Config:
        """Declare the volume of a service's config files, shared by its nodes, and its config loader.

        Its name has a digest of the files: other contents are another volume, so that a node which is not yet replaced
        keeps the files that it was started with. A node depends on the loader as a whole and on no property of it: else
        replacing the loader would replace every node at once.
        """
        if service.name in self._config:
            return self._config[service.name]
        first = Layout(self.stack, self.services)
        declared = declare(service, first, self._options)
        contents: pulumi.Output[dict[str, str]] = pulumi.Output.all(**secrets).apply(
            lambda known: files(service, names, known, self._root)
        )
        contents = pulumi.Output.secret(contents)
        name = pulumi.Output.unsecret(
            contents.apply(lambda known: f"plinth-{self.stack}-{service.name}-config-{digest(known, self.stack)}")
        )
        volume = resources.volume(name, f"{service.name}-config", declared.labels, self._provider, keep=False)
        resource = f"{service.name}{resources.CARRIER_SUFFIX}"
        carrier = resources.loader(declared, resource, image, volume.name, contents, self._provider)
        self._config[service.name] = (volume.name, carrier)
        return self._config[service.name]
