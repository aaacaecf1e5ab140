"""One environment, typed and validated: the `plinth:` keys of stacks/Pulumi.<env>.yaml.

The models say what there is to set. Reading the file is in :mod:`plinth.environment`, refusals that compare settings
with each other or with what runs are in :mod:`plinth.preflight`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from plinth.tiers import SIZES, Size, Tier

Port = Annotated[int, Field(ge=1, le=65535)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
CRON = r"^(\S+\s+){4}\S+$"
Version = Annotated[str, StringConstraints(pattern=r"^v?\d+\.\d+(\.\d+)?$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetName(StrEnum):
    """Where an environment runs."""

    local = "local"
    docker = "docker"
    kubernetes = "kubernetes"


class Tls(_Model):
    """TLS on every port. Files are PEM, relative to the project; `{}` has certificates issued by an own authority."""

    cert: str | None = Field(None, description="The server's certificate; issued by an own authority when absent.")
    key: str | None = Field(None, description="The certificate's key.")
    ca_cert: str | None = Field(
        None, description="Who signed it, for clients and between peers; the machine's authorities when absent."
    )

    @model_validator(mode="after")
    def _whole(self) -> Tls:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together: give both, or neither for certificates of an own authority")
        if self.cert is None and self.ca_cert is not None:
            raise ValueError("ca_cert goes with cert and key: an own authority has its own")
        return self


class Qdrant(_Model):
    """Qdrant: one node or a cluster of 3 and more."""

    engine: Literal["auto", "server", "embedded"] = Field(
        "auto",
        description="The local target's: auto is the qdrant binary where there is one, else the embedded engine.",
    )
    nodes: int = Field(1, ge=1, le=64, description="Peers. 1, or 3 and more: two have no majority once one fails.")
    version: Version = Field("1.18.3", description="The server's version; an upgrade goes one minor at a time.")
    http_port: Port = 6333
    grpc_port: Port = 6334
    replication_factor: int = Field(1, ge=1, description="The default for new collections.")
    allow_single_replica: bool = Field(False, description="Accept replication 1 on a cluster: a lost node loses data.")
    auth: bool = Field(True, description="Keys are on; off is refused anywhere but on loopback.")
    api_key: SecretStr | None = Field(None, description="Generated and kept when absent.")
    alt_api_key: SecretStr | None = Field(None, description="A second full key, while applications change to another.")
    read_only_api_key: SecretStr | None = Field(None, description="Generated and kept when absent.")
    tls: Tls | None = None
    cpus: float | None = Field(None, gt=0, description="Cores; the tier's when absent.")
    memory_mib: int | None = Field(None, ge=512, description="MiB; the tier's when absent.")
    disk_gib: int | None = Field(None, ge=1, description="GiB; the tier's when absent.")
    log_level: str = Field("INFO", pattern="^(TRACE|DEBUG|INFO|WARN|ERROR)$")
    on_disk_payload: bool = True
    audit: bool | None = Field(
        None, description="Write down who asked for what, without vectors; as monitoring.loki.enabled when absent."
    )
    settle_timeout_sec: int = Field(
        600, ge=1, description="How long a node of a cluster may take to recover before a change stops at it."
    )
    wal_capacity_mb: int = Field(32, ge=1)
    flush_interval_sec: int = Field(5, ge=1)
    indexing_threshold_kb: int = Field(10000, ge=1)
    max_request_size_mb: int = Field(32, ge=1)


class Database(_Model):
    """A database and the one role that owns it."""

    name: Identifier
    owner: Identifier | None = Field(None, description="The database's name when absent.")
    password: SecretStr | None = Field(None, description="Generated and kept when absent.")

    @property
    def role(self) -> str:
        """The owner's name."""
        return self.owner or self.name


class Postgres(_Model):
    """Postgres with several databases, each with an owner of its own (S1-01)."""

    enabled: bool = True
    port: Port = 5432
    databases: tuple[Database, ...] = ()
    superuser_password: SecretStr | None = Field(None, description="Generated and kept when absent.")
    memory_mib: int | None = Field(None, ge=128)
    max_connections: int | None = Field(None, ge=10)
    disk_gib: int = Field(10, ge=1)


class Redis(_Model):
    """Redis 7 with persistence, a memory limit and a policy (S1-04)."""

    enabled: bool = True
    port: Port = 6379
    password: SecretStr | None = Field(None, description="Generated and kept when absent.")
    maxmemory_mib: int | None = Field(None, ge=16, description="MiB; the tier's when absent.")
    maxmemory_policy: str = Field(
        "allkeys-lru", pattern="^(noeviction|(allkeys|volatile)-(lru|lfu|random)|volatile-ttl)$"
    )
    appendonly: bool = True
    disk_gib: int = Field(5, ge=1)


class Neo4j(_Model):
    """Neo4j 5, off unless asked for (S1-02)."""

    enabled: bool = False
    http_port: Port = 7474
    bolt_port: Port = 7687
    password: SecretStr | None = Field(None, min_length=8, description="Generated and kept when absent.")
    memory_mib: int | None = Field(None, ge=768, description="MiB; the tier's when absent.")
    disk_gib: int = Field(10, ge=1)


class Prometheus(_Model):
    """Prometheus and how long it keeps what it scraped."""

    enabled: bool = True
    port: Port = 9090
    retention_days: int = Field(15, ge=1)
    scrape_interval_sec: int = Field(15, ge=5)


class Alertmanager(_Model):
    """Alertmanager; without a webhook alerts stay in its own page."""

    enabled: bool = True
    port: Port = 9093
    webhook_url: SecretStr | None = Field(None, description="Where pages go, and tickets unless they have their own.")
    ticket_webhook_url: SecretStr | None = Field(None, description="Where tickets go; webhook_url when absent.")
    heartbeat_url: SecretStr | None = Field(
        None, description="A heartbeat outside of the stack that complains when the watchdog stops calling it."
    )


class Grafana(_Model):
    """Grafana, run where a binary or an image of it exists; else reported as left out."""

    enabled: bool = True
    port: Port = 3000
    admin_password: SecretStr | None = Field(None, description="Generated and kept when absent.")


class Loki(_Model):
    """Loki and Fluent Bit, which brings it what every service prints, and Qdrant's audit log; off unless asked for."""

    enabled: bool = False
    port: Port = 3100
    agent_port: Port = Field(2020, description="Fluent Bit's metrics and health.")
    intake_port: Port = Field(24224, description="Where the Docker engine hands Fluent Bit what containers print.")
    retention_days: int = Field(15, ge=1)


class Exporters(_Model):
    """Prometheus exporters for what does not speak its format."""

    enabled: bool = True
    node_port: Port = 9100
    redis_port: Port = 9121
    postgres_port: Port = 9187
    plinth_port: Port = Field(9188, description="Plinth's own: collections, test searches, backups.")


class Monitoring(_Model):
    """What watches the stack."""

    prometheus: Prometheus = Prometheus()
    alertmanager: Alertmanager = Alertmanager()
    grafana: Grafana = Grafana()
    loki: Loki = Loki()
    exporters: Exporters = Exporters()
    runbooks_url: str | None = Field(
        None,
        pattern="^https?://",
        description="Where monitoring/runbooks can be read; alerts then lead there, and else name the file.",
    )


class Retention(_Model):
    """How many snapshots of each age restic keeps (S1-06)."""

    daily: int = Field(7, ge=1)
    weekly: int = Field(4, ge=0)
    monthly: int = Field(6, ge=0)


class S3(_Model):
    """What opens a repository in S3: `repository: s3:https://host/bucket/prefix`."""

    access_key_id: SecretStr
    secret_access_key: SecretStr
    region: str | None = None
    path_style: bool = Field(False, description="The bucket in the path and not in the host's name, as MinIO wants it.")


class Backup(_Model):
    """Where backups go, when, and how many are kept."""

    enabled: bool = True
    name: str = Field(
        "plinth",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="What its sets are called; environments that share a repository need a name each.",
    )
    repository: str | None = Field(None, description="A restic repository; a local one beside the data when absent.")
    password: SecretStr | None = Field(None, description="Generated and kept when absent.")
    s3: S3 | None = None
    schedule: str = Field("0 3 * * *", description="Cron, in UTC.", pattern=CRON)
    check_schedule: str = Field("0 4 * * 6", description="When the repository is checked: cron, in UTC.", pattern=CRON)
    drill_schedule: str = Field("0 5 * * 0", description="When a restore is drilled: cron, in UTC.", pattern=CRON)
    check_parts: int = Field(4, ge=1, description="So many checks in a row read every byte of the repository once.")
    upload_kib: int | None = Field(None, ge=1, description="KiB a second that may be uploaded; unlimited when absent.")
    keep: Retention = Retention()
    disk_gib: int = Field(20, ge=1, description="For staging a set, and for the repository where it is local.")
    port: Port = Field(9189, description="Where the schedule says that it is alive.")


class Collections(_Model):
    """Which collection files an environment takes, and what it changes in them."""

    directory: str = Field("config/collections", description="Relative to the project.")
    only: tuple[str, ...] | None = Field(None, description="Names to take; all when absent.")
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Spec keys by collection name.")
    deletion_policy: Literal["keep", "delete"] = Field(
        "keep",
        description="What becomes of a collection whose file is removed; its data is kept unless you say delete.",
    )


class Slo(_Model):
    """Where the latency targets are."""

    file: str = "load/slo.yaml"


class Docker(_Model):
    """Settings of the docker target."""

    registry_mirror: str | None = Field(
        None, description="A registry, or a path in one, that holds the images under their own paths."
    )
    images: dict[str, str] = Field(default_factory=dict, description="Image references by key of config/images.yaml.")
    host: str | None = Field(None, description="The engine's address; the docker client's own default when absent.")
    nofile: int = Field(
        65536, ge=1024, description="Open files of a container; the engine cannot give more than it has."
    )


class Managed(_Model):
    """Stores that someone else runs: named here, they are used and not deployed.

    Their passwords are set in plinth:qdrant, plinth:postgres and plinth:redis.
    """

    qdrant_url: str | None = Field(
        None, pattern=r"^https?://[^/@:]+:\d{1,5}$", description="REST of a Qdrant, such as one of Qdrant Cloud."
    )
    qdrant_grpc_url: str | None = Field(None, pattern=r"^https?://[^/@:]+:\d{1,5}$", description="Its gRPC.")
    postgres_url: str | None = Field(
        None, pattern=r"^postgres(ql)?://[^/@:]+@[^/@:]+:\d{1,5}$", description="`postgresql://superuser@host:5432`."
    )
    redis_url: str | None = Field(
        None, pattern=r"^rediss?://[^/@:]+:\d{1,5}$", description="`rediss://host:6379` for TLS, else `redis://`."
    )

    @model_validator(mode="after")
    def _whole(self) -> Managed:
        if (self.qdrant_url is None) != (self.qdrant_grpc_url is None):
            raise ValueError("qdrant_url and qdrant_grpc_url go together: give both, or neither")
        return self


class Kubernetes(_Model):
    """Settings of the kubernetes target."""

    kubeconfig: str | None = Field(None, description="A kubeconfig file; KUBECONFIG's, else ~/.kube/config's.")
    context: str | None = Field(None, description="kubeconfig context; the current one when absent.")
    namespace: str = Field("plinth", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    storage_class: str | None = Field(None, description="The cluster's default when absent.")
    registry_mirror: str | None = Field(
        None, description="A registry, or a path in one, that holds the images under their own paths."
    )
    images: dict[str, str] = Field(default_factory=dict, description="Image references by key of config/images.yaml.")
    forward_offset: int = Field(
        10000,
        ge=0,
        le=50000,
        description="Ports of this machine that lead into the cluster are this much above the services' own.",
    )
    qdrant_url: str | None = Field(
        None,
        pattern=r"^https?://[^/@:]+:\d{1,5}$",
        description="Where the deployed Qdrant's REST is published, such as an ingress; a port-forward when absent.",
    )
    managed: Managed = Managed()


class Settings(_Model):
    """One environment, whole."""

    target: TargetName
    tier: Tier = Tier.small
    bind_address: str = Field("127.0.0.1", description="Where published ports listen.")
    qdrant: Qdrant = Qdrant()
    collections: Collections = Collections()
    postgres: Postgres = Postgres()
    redis: Redis = Redis()
    neo4j: Neo4j = Neo4j()
    monitoring: Monitoring = Monitoring()
    backup: Backup = Backup()
    slo: Slo = Slo()
    docker: Docker = Docker()
    kubernetes: Kubernetes = Kubernetes()

    @property
    def audited(self) -> bool:
        """Whether Qdrant writes its audit log."""
        return self.monitoring.loki.enabled if self.qdrant.audit is None else self.qdrant.audit

    @property
    def managed(self) -> Managed:
        """The stores that someone else runs; the kubernetes target alone takes any."""
        return self.kubernetes.managed if self.target is TargetName.kubernetes else Managed()

    @property
    def size(self) -> Size:
        """The tier's numbers, with what is set alone in their place."""
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
        )
