"""One environment, typed and validated: the `plinth:` keys of stacks/Pulumi.<env>.yaml.

The models define the settings. :mod:`plinth.settings.loader` reads the file; checks that compare settings with each
other or with what runs are in :mod:`plinth.deployment.preflight`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from plinth.settings.backup import Backup
from plinth.settings.base import Model
from plinth.settings.gateway import Gateway
from plinth.settings.monitoring import Monitoring, Slo
from plinth.settings.stores import Collections, Database, Neo4j, Postgres, Qdrant, Redis, Tls
from plinth.settings.targets import Docker, Kubernetes, Managed, TargetName
from plinth.settings.tiers import SIZES, Size, Tier

__all__ = [
    "Backup",
    "Collections",
    "Docker",
    "Gateway",
    "Kubernetes",
    "Managed",
    "Monitoring",
    "Neo4j",
    "Postgres",
    "Qdrant",
    "Redis",
    "Settings",
    "Slo",
    "TargetName",
    "Tls",
]


LOOPBACK = "127.0.0.1"
# The gateway's database, and the role that owns it.
GATEWAY_DATABASE = "plinth_gateway"


class Settings(Model):
    """The settings of one environment."""

    target: TargetName
    tier: Tier = Tier.small
    bind_address: str = Field(LOOPBACK, description="Where the ports of services in docker.publish listen.")
    qdrant: Qdrant = Qdrant()
    collections: Collections = Collections()
    postgres: Postgres = Postgres()
    redis: Redis = Redis()
    neo4j: Neo4j = Neo4j()
    monitoring: Monitoring = Monitoring()
    gateway: Gateway = Gateway()
    backup: Backup = Backup()
    slo: Slo = Slo()
    docker: Docker = Docker()
    kubernetes: Kubernetes = Kubernetes()
    accepted_advisories: dict[str, str] = Field(
        default_factory=dict,
        description="Published holes of config/advisories.yaml that may run all the same: the reason by id.",
    )

    @property
    def audited(self) -> bool:
        """Whether Qdrant writes its audit log."""
        return self.monitoring.loki.enabled if self.qdrant.audit is None else self.qdrant.audit

    @property
    def databases(self) -> tuple[Database, ...]:
        """Every database of Postgres: those of the settings, and the gateway's."""
        own = (Database(name=GATEWAY_DATABASE),) if self.gateway.enabled else ()
        return (*self.postgres.databases, *own)

    @property
    def managed(self) -> Managed:
        """The stores that are externally managed; only the kubernetes target supports them."""
        return self.kubernetes.managed if self.target is TargetName.kubernetes else Managed()

    @property
    def published(self) -> Mapping[str, str]:
        """The addresses that containers' ports listen on, by service; all others listen on loopback."""
        return dict.fromkeys(self.docker.publish, self.bind_address)

    @property
    def size(self) -> Size:
        """The tier's resources, with those of the settings in their place."""
        base = SIZES[self.tier]
        return Size(
            cpus=self.qdrant.cpus or base.cpus,
            memory_mib=self.qdrant.memory_mib or base.memory_mib,
            disk_gib=self.qdrant.disk_gib or base.disk_gib,
            postgres_memory_mib=self.postgres.memory_mib or base.postgres_memory_mib,
            postgres_connections=self.postgres.max_connections or base.postgres_connections,
            redis_memory_mib=self.redis.maxmemory_mib or base.redis_memory_mib,
            prometheus_disk_gib=base.prometheus_disk_gib,
            neo4j_memory_mib=self.neo4j.memory_mib or base.neo4j_memory_mib,
            gateway_memory_mib=self.gateway.memory_mib or base.gateway_memory_mib,
        )
