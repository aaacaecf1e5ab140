"""The interface of a target, and what it returns for each service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pulumi

from plinth.kubernetes.rolling_update_plan import Rolled
from plinth.services import Service
from plinth.services.render import Place


@dataclass(frozen=True)
class Placed:
    """A service that a target has declared; ``instance`` changes whenever it was started anew.

    ``rolled`` is set where a change does not restart its nodes: they are then changed one by one. ``answers`` is False
    for one that runs by schedule alone: between its times there is nobody to wait for.
    """

    name: str
    resource: pulumi.Resource
    instance: pulumi.Output[str]
    rolled: Rolled | None = None
    answers: bool = True


@dataclass(frozen=True)
class Node:
    """One running copy of a service: what its resources are called, and its number among its peers."""

    name: str
    number: int = 0


class Target(Place, Protocol):
    """Turns services into Pulumi resources, and answers their templates."""

    left_out: dict[str, str]
    """Optional services that cannot run here, and why."""

    def serving(self, service: str) -> str:
        """Return the identity of what runs a service, a program or an image; another one may come with other data."""

    def nodes(self, service: Service) -> Sequence[Node]:
        """Return the nodes of a service, in the order in which they start and are changed."""

    def reach(self, service: str, port: str, node: int = 0) -> str:
        """Return the `host:port` of a service from this machine; services reach each other at ``address``."""

    def hosts(self, service: str) -> Sequence[str]:
        """Return every name and address of a service's nodes, for their certificate."""

    def place(
        self, service: Service, node: Node, secrets: Mapping[str, pulumi.Output[str]], needs: Sequence[pulumi.Resource]
    ) -> Placed:
        """Declare the resources of one node of a service."""
