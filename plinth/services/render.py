"""Rendering of a service's templates: a pure function from (service, placement, secrets) to text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from plinth.services.spec import Copy, File, Service
from plinth.system.atomic_files import pattern_of
from plinth.system.yaml_files import read_text


class Place(Protocol):
    """The placement of a service by a target: the values that its templates may use."""

    @property
    def stack(self) -> str:
        """The environment's name."""

    @property
    def bind(self) -> str:
        """The address that the service listens on."""

    @property
    def node(self) -> int:
        """The number of the node among its peers; 0 for a service without peers."""

    def address(self, service: str, port: str) -> str:
        """Return the `host:port` of another service, as services reach it."""

    def addresses(self, service: str, port: str) -> Sequence[str]:
        """Return the `host:port` of each node of another service, as services reach it."""

    def peer(self, service: str, node: int, port: str) -> str:
        """Return the `host:port` of a node of the service, as its peers reach it."""

    def file(self, service: str, name: str) -> str:
        """Return the path of a config file, as the service sees it."""

    def volume(self, service: str, name: str) -> str:
        """Return the path of a volume, as the service sees it."""

    @property
    def output(self) -> str | None:
        """The glob of the services' output files; None where the target sends the output to the log agent."""

    @property
    def cgroups(self) -> Mapping[str, Any] | None:
        """The containers' cgroup accounting, for the exporter's config; None where services are not containers."""

    def takes_url_files(self) -> bool:
        """Return whether the Alertmanager that runs here reads the addresses of receivers from files."""

    def read(self, service: str, name: str) -> Mapping[str, str]:
        """Return the path of another service's volume, as a service that reads it sees it, by the name of the node."""


@dataclass(frozen=True)
class Command:
    """The rendered templates of a service that hold no secret."""

    arguments: tuple[str, ...]
    initialise: tuple[str, ...]
    environment: Mapping[str, str]
    check: tuple[str, ...]


def command(service: Service, place: Place) -> Command:
    """Render the arguments and the environment.

    Templates may use ``stack``, ``bind``, ``home``, ``node``, ``port(name)``, ``address(service, port)``,
    ``addresses(service, port)``, ``peer(node, port)``, ``file(name)``, ``volume(name)``, ``secret_file(name)``,
    ``output``, ``cgroups``, ``takes_url_files()`` and ``read(service, volume)``; any other name is a bug and raises.
    Only files have secrets, so that no secret is in an argument list or an environment.
    """
    names = _names(service, place)
    environment = Environment(undefined=StrictUndefined)  # noqa: S701 - arguments, not HTML
    environment.filters["glob"] = pattern_of

    def line(template: str) -> str:
        return environment.from_string(template).render(names)

    return Command(
        arguments=tuple(line(argument) for argument in service.arguments),
        initialise=tuple(line(argument) for argument in service.initialise),
        environment={name: line(value) for name, value in service.environment.items()},
        check=tuple(line(argument) for argument in service.program.container.check),
    )


def files(service: Service, place: Place, secrets: Mapping[str, str], root: Path) -> dict[str, str]:
    """Return the contents of a service's files by relative path; templates may use ``secret(name)`` too."""
    names = _names(service, place) | {"secret": secrets.__getitem__}
    environment = Environment(  # noqa: S701 - config files, not HTML
        loader=FileSystemLoader(root), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["glob"] = pattern_of
    environment.filters["sha256"] = lambda text: hashlib.sha256(text.encode()).hexdigest()

    def content(file: File | Copy) -> str:
        if isinstance(file, Copy):
            text = read_text(root / file.source)
            for words, others in file.replaced.items():
                text = text.replace(words, others)
            return text
        return environment.get_template(file.template).render(names, **file.values)

    contents = {name: content(file) for name, file in service.files.items()}
    return contents | {f"{name}.secret": secrets[name] for name in service.secret_files}


def _names(service: Service, place: Place) -> dict[str, Any]:
    return {
        "stack": place.stack,
        "bind": place.bind,
        "home": service.program.home,
        "node": place.node,
        "port": {**service.ports, **(service.peers.ports if service.peers else {})}.__getitem__,
        "address": place.address,
        "addresses": place.addresses,
        "peer": lambda node, port: place.peer(service.name, node, port),
        "file": lambda name: place.file(service.name, name),
        "volume": lambda name: place.volume(service.name, name),
        "volume_of": place.volume,
        "output": place.output,
        "cgroups": place.cgroups,
        "read": place.read,
        "takes_url_files": place.takes_url_files,
        "secret_file": lambda name: place.file(service.name, f"{name}.secret"),
    }
