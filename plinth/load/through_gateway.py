"""The gateway as the target of the load gate, as an organisation with a token signed by the stack's key."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from plinth.errors import UserError
from plinth.gateway.client import ApiError, Client
from plinth.load.dataset_points import organisation_of
from plinth.load.locust_runner import Aim, Protocol
from plinth.qdrant.spec import CollectionSpec
from plinth.system.tls import trusting

# Collections that are created to measure how long that takes; those of a killed run are dropped by this name.
MADE = "made-"


@dataclass(frozen=True)
class GatewayServer:
    """The target of the load in place of Qdrant. ``grpc`` is `host:port`; ``token`` issues one for an organisation."""

    url: str
    grpc: str
    token: Callable[[str], str]
    ca_cert: str | None = None

    @property
    def tls(self) -> bool:
        """Whether it serves TLS, on both ports."""
        return self.url.startswith("https://")

    def aim(self, protocol: Protocol, spec: CollectionSpec) -> Aim:
        """Return the load target for a protocol, with a collection by its name within the organisation."""
        organisation, name = organisation_of(spec.name)
        address = self.grpc if protocol == "grpc" else self.url
        token = self.token(organisation)
        return Aim(
            protocol,
            address,
            token,
            name,
            spec.search.params(),
            self.tls,
            self.ca_cert,
            through="gateway",
            scratch=organisation,
        )

    def made(self, spec: CollectionSpec, count: int) -> list[float]:
        """Create collections one after the other and drop each; return the milliseconds that each creation took."""
        organisation, _ = organisation_of(spec.name)
        verify: ssl.SSLContext | None = trusting(self.ca_cert) if self.ca_cert else None
        size, took = spec.vectors.size, []
        with _no_verdict(), Client(self.url, self.token(organisation), verify=verify) as client:
            for name in client.list_collections():
                if name.startswith(MADE):
                    client.delete_collection(name)
            for number in range(count):
                name = f"{MADE}{number}"
                try:
                    began = time.perf_counter()
                    client.create_collection(name, dimension=size, distance="Cosine")
                    took.append((time.perf_counter() - began) * 1000)
                finally:
                    with suppress(ApiError):
                        client.delete_collection(name)
        return took


@contextmanager
def _no_verdict() -> Iterator[None]:
    """Turn a refused or unanswered request of the gateway into an error: there is no measurement."""
    try:
        yield
    except ApiError as error:
        raise UserError(f"No verdict: the gateway answered {error}; see its log.", exit_code=3) from error
