"""The stores, and Qdrant's collections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from plinth.settings.base import HeaderSecret, Model, Port, ProjectPath, Secret

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
Version = Annotated[str, StringConstraints(pattern=r"^v?\d+\.\d+(\.\d+)?$")]


class Tls(Model):
    """TLS on every port. Files are PEM, relative to the project; `{}` has certificates of the environment's own CA."""

    cert: ProjectPath | None = Field(
        None, description="The server's certificate; issued by an own authority when absent."
    )
    key: ProjectPath | None = Field(None, description="The certificate's key.")
    ca_cert: ProjectPath | None = Field(
        None, description="Who signed it, for clients and between peers; the machine's authorities when absent."
    )

    @model_validator(mode="after")
    def _whole(self) -> Tls:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together: give both, or neither for certificates of an own authority")
        if self.cert is None and self.ca_cert is not None:
            raise ValueError("ca_cert goes with cert and key: an own authority has its own")
        return self

    @property
    def names_signer(self) -> bool:
        """Whether clients need a CA certificate file; false where the system trust store verifies the server."""
        return self.cert is None or self.ca_cert is not None


class Qdrant(Model):
    """Qdrant: one node or a cluster of 3 and more."""

    engine: Literal["auto", "server", "embedded"] = Field(
        "auto",
        description="The local target's: auto is the qdrant binary where there is one, else the embedded engine.",
    )
    nodes: int = Field(1, ge=1, le=64, description="Peers. 1, or 3 and more: two have no majority once one fails.")
    version: Version = Field("1.18.3", description="The server's version; an upgrade goes one minor at a time.")
    http_port: Port = Field(6333, description="REST; node n of a cluster on docker is published 10 n above it.")
    grpc_port: Port = Field(6334, description="gRPC; node n of a cluster on docker is published 10 n above it.")
    replication_factor: int = Field(1, ge=1, description="The default for new collections.")
    allow_single_replica: bool = Field(False, description="Accept replication 1 on a cluster: a lost node loses data.")
    auth: bool = Field(True, description="Keys are on; off is refused anywhere but on loopback.")
    api_key: HeaderSecret | None = Field(None, description="Generated and kept when absent.")
    alt_api_key: HeaderSecret | None = Field(
        None, description="A second full key, while applications change to another."
    )
    read_only_api_key: HeaderSecret | None = Field(None, description="Generated and kept when absent.")
    jwt_rbac: bool = Field(
        False,
        description="Take tokens, signed with the key, that open a part; the gateway has one per collection.",
    )
    tls: Tls | None = None
    cpus: float | None = Field(None, gt=0, description="Cores; the tier's when absent.")
    memory_mib: int | None = Field(None, ge=512, description="MiB; the tier's when absent.")
    disk_gib: int | None = Field(None, ge=1, description="GiB; the tier's when absent.")
    log_level: str = Field("INFO", pattern="^(TRACE|DEBUG|INFO|WARN|ERROR)$", description="Level of Qdrant's own log.")
    on_disk_payload: bool = Field(True, description="Keep payloads on disk by default.")
    audit: bool | None = Field(
        None, description="Write down who asked for what, without vectors; as monitoring.loki.enabled when absent."
    )
    settle_timeout_sec: int = Field(
        600, ge=1, description="How long a node of a cluster may take to recover before a change stops at it."
    )
    wal_capacity_mb: int = Field(32, ge=1, description="Size of a write-ahead log segment.")
    flush_interval_sec: int = Field(5, ge=1, description="How often segments are flushed to disk.")
    indexing_threshold_kb: int = Field(10000, ge=1, description="Vectors of a segment above this size get a graph.")
    max_request_size_mb: int = Field(32, ge=1, description="Largest request body.")


class Collections(Model):
    """The collection files that an environment uses, and its overrides of them."""

    directory: ProjectPath = Field("config/collections", description="Relative to the project.")
    only: tuple[str, ...] | None = Field(None, description="Names to take; all when absent.")
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Spec keys by collection name.")
    deletion_policy: Literal["keep", "delete"] = Field(
        "keep",
        description="What becomes of a collection whose file is removed; its data is kept unless you say delete.",
    )


class Database(Model):
    """A database and the one role that owns it."""

    name: Identifier = Field(description="Name of the database.")
    owner: Identifier | None = Field(None, description="The database's name when absent.")
    password: Secret | None = Field(None, description="Generated and kept when absent.")

    @property
    def role(self) -> str:
        """The owner's name."""
        return self.owner or self.name


class Postgres(Model):
    """Postgres with several databases, each with an owner of its own (S1-01)."""

    enabled: bool = Field(True, description="Deploy Postgres.")
    port: Port = Field(5432, description="Port of the server.")
    databases: tuple[Database, ...] = Field((), description="Databases, each with an owner of its own.")
    superuser_password: Secret | None = Field(None, description="Generated and kept when absent.")
    memory_mib: int | None = Field(None, ge=128, description="Memory limit of the service; the tier's when absent.")
    max_connections: int | None = Field(
        None, ge=10, description="Connections that the server accepts; the tier's when absent."
    )
    disk_gib: int = Field(10, ge=1, description="Size of the data volume.")


class Redis(Model):
    """Redis 7 with persistence, a memory limit and a policy (S1-04)."""

    enabled: bool = Field(True, description="Deploy Redis.")
    port: Port = Field(6379, description="Port of the server.")
    password: Secret | None = Field(None, description="Generated and kept when absent.")
    maxmemory_mib: int | None = Field(None, ge=16, description="MiB; the tier's when absent.")
    maxmemory_policy: str = Field(
        "allkeys-lru",
        pattern="^(noeviction|(allkeys|volatile)-(lru|lfu|random)|volatile-ttl)$",
        description="What Redis evicts when its memory is full.",
    )
    appendonly: bool = Field(True, description="Write an append-only file, so that a restart loses at most a second.")
    disk_gib: int = Field(5, ge=1, description="Size of the data volume.")


class Neo4j(Model):
    """Neo4j 5, off by default (S1-02)."""

    enabled: bool = Field(False, description="Deploy Neo4j; local and docker only.")
    http_port: Port = Field(7474, description="Browser and HTTP API.")
    bolt_port: Port = Field(7687, description="Bolt.")
    password: Secret | None = Field(None, min_length=8, description="Generated and kept when absent.")
    memory_mib: int | None = Field(None, ge=768, description="MiB; the tier's when absent.")
    disk_gib: int = Field(10, ge=1, description="Size of the data volume.")
