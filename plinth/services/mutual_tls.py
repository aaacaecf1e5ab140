"""Mutual TLS for services that know no password: they answer who has a client certificate of the environment's own CA.

A server's certificate is good for a server alone, so that none of them can ask another; a peer asks itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plinth.services.spec import Service
from plinth.settings import Settings, TargetName

CA = "monitoring_ca"


@dataclass(frozen=True)
class Identity:
    """A certificate of the CA and its key, by the names of their secrets."""

    name: str

    @property
    def ca(self) -> str:
        """The CA's secret."""
        return CA

    @property
    def cert(self) -> str:
        """The certificate's secret."""
        return f"{self.name}_identity_cert"

    @property
    def key(self) -> str:
        """The key's secret."""
        return f"{self.name}_identity_key"

    @property
    def files(self) -> tuple[str, str, str]:
        """What its service reads: the CA, the certificate and the key."""
        return self.ca, self.cert, self.key


# Who asks while deploying and in `plinth status`.
PLINTH = Identity("plinth")


def is_on(settings: Settings) -> bool:
    """Whether services ask for certificates: on kubernetes network policies say who may ask."""
    return settings.target is not TargetName.kubernetes


def identities(services: Sequence[Service]) -> dict[str, str]:
    """Whose certificates there are, with what each is for; none where no service asks for any."""
    roles = {service.name: service.identity for service in services if service.identity}
    return {**roles, PLINTH.name: "client"} if set(roles.values()) - {"client"} else {}
