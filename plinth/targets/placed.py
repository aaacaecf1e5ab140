"""What a target gives back for each service, and what it must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pulumi

from plinth.services import Service
from plinth.services.render import Place


@dataclass(frozen=True)
class Placed:
    """A service that a target has declared; ``instance`` changes whenever it was started anew."""

    name: str
    resource: pulumi.Resource
    instance: pulumi.Output[str]


class Target(Place, Protocol):
    """Turns services into Pulumi resources, and answers their templates."""

    left_out: dict[str, str]
    """Optional services that cannot run here, and why."""

    def serving(self, service: str) -> str:
        """What runs a service, a program or an image: another one may come with other data."""

    def place(
        self, service: Service, secrets: Mapping[str, pulumi.Output[str]], needs: Sequence[pulumi.Resource]
    ) -> Placed:
        """Declare the resources of one service."""
