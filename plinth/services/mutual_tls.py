"""Mutual TLS for services without passwords: they serve clients with a certificate of the environment's own CA.

A server's certificate is valid for a server only, so that no server can call another; a peer calls itself.
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
        """The CA certificate's secret."""
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
        """The files that its service reads: the CA, the certificate and the key."""
        return self.ca, self.cert, self.key


# The client of deployments and of `plinth status`.
PLINTH = Identity("plinth")


def is_on(settings: Settings) -> bool:
    """Return whether services require client certificates: on kubernetes, network policies restrict access instead."""
    return settings.target is not TargetName.kubernetes


def identities(services: Sequence[Service]) -> dict[str, str]:
    """Return the certificates to issue, each with its purpose; empty where no service requires client certificates."""
    roles = {service.name: service.identity for service in services if service.identity}
    return {**roles, PLINTH.name: "client"} if set(roles.values()) - {"client"} else {}
