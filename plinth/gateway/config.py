"""The gateway's configuration: one YAML file, and the variables that its first document names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator

from plinth.errors import UserError
from plinth.gateway.providers.config import MiniLMProvider, Provider
from plinth.qdrant.spec import CollectionSpec
from plinth.system.config_file import load
from plinth.system.strict_model import StrictModel


class Listen(StrictModel):
    """Where the gateway serves; TLS on both ports where a certificate is named.

    ``processes`` is how many servers share the ports.
    """

    host: str
    http_port: int
    grpc_port: int | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    processes: int = Field(1, ge=1, le=32)


class QdrantServer(StrictModel):
    """Qdrant's REST; with ``collection_tokens`` it takes tokens that open one collection (its `jwt_rbac`)."""

    url: str
    api_key_file: Path | None = None
    collection_tokens: bool = False
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _signs(self) -> Self:
        if self.collection_tokens and self.api_key_file is None:
            raise ValueError("tokens of a collection are signed with the API key; name api_key_file")
        return self


class PostgresServer(StrictModel):
    """The database of jobs."""

    host: str
    port: int
    database: str
    user: str
    password_file: Path


class RedisServer(StrictModel):
    """Where results are cached, limits counted and jobs queued."""

    host: str
    port: int
    password_file: Path | None = None
    tls: bool = False


class Tokens(StrictModel):
    """Who signs tokens: a key of the stack, or the public keys of a JWKS file or address."""

    key_file: Path | None = None
    jwks: str | None = None
    issuer: str | None = "plinth"
    audience: str = "plinth-gateway"
    organisation_claim: str = "org_id"
    scopes_claim: str = "scope"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.key_file is None) == (self.jwks is None):
            raise ValueError("tokens are checked with key_file or with jwks; name one of them")
        return self


class Cache(StrictModel):
    """Results of searches; ``ttl_s`` is how long one is kept, in seconds."""

    enabled: bool = True
    ttl_s: float = Field(30.0, gt=0, le=3600)


class Audit(StrictModel):
    """A file for the audit log, standard output where none is named."""

    file: Path | None = None
    required: bool = False


class Limits(StrictModel):
    """Operations a second of one organisation and how many at once above that; bytes of a request; seconds of one."""

    per_second: int = Field(1000, ge=1)
    burst: int = Field(2000, ge=1)
    body_bytes: int = Field(32 * 2**20, ge=1024)
    request_s: float = Field(30.0, gt=0)


class Probes(StrictModel):
    """How /readyz asks each dependency (S0-03)."""

    qdrant: bool = True
    timeout_ms: int = Field(300, ge=1)
    retries: int = Field(2, ge=0, le=10)
    cache_sec: float = Field(10.0, ge=0)


class JobLimits(StrictModel):
    """Jobs that a worker does at once, and how often the outbox is looked through."""

    worker_concurrency: int = Field(2, ge=1, le=64)
    dispatch_interval_ms: int = Field(1000, ge=10)


class TracingConfig(StrictModel):
    """Where spans go: a collector, which takes them at `/v1/traces` below the endpoint.

    ``headers_file`` has the headers that it wants: `name=value`, several with commas between them.
    """

    endpoint: str = Field(pattern=r"^https?://\S+$")
    sample_ratio: float = Field(0.1, gt=0, le=1)
    headers_file: Path | None = None


class GatewayConfig(StrictModel):
    """The whole file. A worker checks nobody's token, and has no ``tokens``."""

    listen: Listen
    qdrant: QdrantServer
    postgres: PostgresServer
    redis: RedisServer
    tokens: Tokens | None = None
    collections: tuple[CollectionSpec, ...] = ()
    provider: Provider = MiniLMProvider()
    cache: Cache = Cache()
    audit: Audit = Audit()
    limits: Limits = Limits()
    probes: Probes = Probes()
    jobs: JobLimits = JobLimits()
    tracing: TracingConfig | None = None
    metrics_token_file: Path | None = None


# The variables of the first document, and the keys that they set.
VARIABLES: Mapping[str, tuple[str, ...]] = {
    "QDRANT_URL": ("qdrant", "url"),
    "VECTOR_SIZE": ("provider", "dimension"),
    "ENABLE_QDRANT": ("probes", "qdrant"),
    "PROBE_TIMEOUT_MS": ("probes", "timeout_ms"),
    "PROBE_RETRIES": ("probes", "retries"),
    "PROBE_CACHE_SEC": ("probes", "cache_sec"),
    "WORKER_CONCURRENCY": ("jobs", "worker_concurrency"),
    "OUTBOX_DISPATCH_INTERVAL_MS": ("jobs", "dispatch_interval_ms"),
}


def load_config(path: Path, variables: Mapping[str, str]) -> GatewayConfig:
    """The file, with what the variables set in its place; raises :class:`UserError` naming key or variable."""
    return with_variables(load(path, GatewayConfig), variables)


def with_variables(config: GatewayConfig, variables: Mapping[str, str]) -> GatewayConfig:
    """A configuration with what the documents' variables set."""
    content: dict[str, Any] = config.model_dump()
    for name, (section, key) in VARIABLES.items():
        if name not in variables:
            continue
        content[section][key] = variables[name]
        try:
            GatewayConfig.model_validate(content)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise UserError(f"{name} is '{variables[name]}': {reason[0].lower()}{reason[1:]}; correct it.") from None
    changed = GatewayConfig.model_validate(content)
    if not urlsplit(changed.qdrant.url).hostname:
        raise UserError(f"QDRANT_URL is '{changed.qdrant.url}', which is no address; write http://host:port.")
    return changed
