"""The gateway: the API that applications use instead of Qdrant's."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from plinth.settings.base import ENCRYPTED, HeaderSecret, Model, Port, Secret, Url
from plinth.settings.stores import Tls

# RFC 7518, section 3.2: as many bits as the hash has.
SIGNING_KEY_MIN = 32


class GatewayTokens(Model):
    """The issuer of the tokens that the gateway accepts.

    Without ``jwks`` the stack has a key of its own, which signs tokens for development (`plinth gateway token`).
    """

    jwks: Url | None = Field(None, description="The public keys of who signs tokens, RS256 or ES256.")
    issuer: str = Field("plinth", min_length=1, description="The iss that a token has.")
    audience: str = Field("plinth-gateway", min_length=1, description="The aud that a token has.")
    organisation_claim: str = Field("org_id", min_length=1, description="The claim that names the organisation.")
    scopes_claim: str = Field("scope", min_length=1, description="The claim with read, write and admin.")
    signing_key: Secret | None = Field(None, description="Of the stack's own tokens; generated and kept when absent.")

    @field_validator("signing_key")
    @classmethod
    def _long_enough(cls, key: SecretStr | None) -> SecretStr | None:
        """Require the length that HS256 needs; a secret known only by its ciphertext is not checked."""
        text = key.get_secret_value() if key else ENCRYPTED
        if text != ENCRYPTED and len(text) < SIGNING_KEY_MIN:
            raise ValueError(f"a key that signs tokens has {SIGNING_KEY_MIN} characters or more")
        return key


class EmbeddingProvider(Model):
    """The provider of text embeddings: `mock` without meaning, `minilm` in-process, `http` an OpenAI-compatible API."""

    name: Literal["mock", "minilm", "http"] = Field("minilm", description="Which provider embeds texts.")
    dimension: int = Field(384, ge=1, le=65535, description="Values of a vector.")
    url: Url | None = Field(None, description="Of http: the address up to /v1.")
    model: str | None = Field(None, description="Of http: the model's name.")
    api_key: HeaderSecret | None = Field(None, description="Of http.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.name == "http" and not (self.url and self.model):
            raise ValueError("the provider http has a url and a model; name both")
        if self.name == "minilm" and self.dimension != 384:
            raise ValueError("minilm makes vectors of 384 values; leave dimension out")
        return self


class GatewayTracing(Model):
    """Traces by OpenTelemetry to a collector that accepts OTLP over HTTP."""

    endpoint: Url = Field(description="The collector's address; spans go to /v1/traces below it.")
    sample_ratio: float = Field(
        0.1, gt=0, le=1, description="Of the requests whose caller has no trace; a caller's own decision holds."
    )
    headers: HeaderSecret | None = Field(
        None, description="What the collector wants to see: name=value, several with commas between them."
    )

    @field_validator("headers")
    @classmethod
    def _named(cls, headers: SecretStr | None) -> SecretStr | None:
        """Require a name for each header; an encrypted value is not checked."""
        text = headers.get_secret_value() if headers else ENCRYPTED
        if text != ENCRYPTED and not all(pair.partition("=")[0].strip() and "=" in pair for pair in text.split(",")):
            raise ValueError("headers are name=value, several with commas between them")
        return headers


class Gateway(Model):
    """REST and gRPC before Qdrant, for organisations that are kept apart (S4-01)."""

    enabled: bool = Field(False, description="Deploy the gateway; needs Postgres and Redis.")
    http_port: Port = Field(8000, description="REST.")
    grpc_port: Port = Field(8001, description="gRPC.")
    worker_port: Port = Field(8002, description="The metrics of the worker that does jobs.")
    processes: int | None = Field(
        None, ge=1, le=32, description="Processes of the server on local and docker; 1, 2 or 3 by the tier when absent."
    )
    replicas: int = Field(1, ge=1, le=64, description="Servers; more than one on kubernetes alone.")
    replicas_max: int | None = Field(
        None, ge=2, le=256, description="Servers are added up to this many as they are busy; on kubernetes alone."
    )
    worker_replicas: int = Field(1, ge=1, le=64, description="Workers; more than one on kubernetes alone.")
    tls: Tls | None = None
    memory_mib: int | None = Field(
        None, ge=512, description="MiB of the server and of the worker, each; the tier's when absent."
    )
    tokens: GatewayTokens = GatewayTokens()
    provider: EmbeddingProvider = EmbeddingProvider()
    tracing: GatewayTracing | None = Field(None, description="Traces; none when absent.")
    cache_ttl_sec: float = Field(30, gt=0, le=3600, description="How long a search's result is kept in Redis.")
    requests_per_second: int = Field(1000, ge=1, description="Of one organisation.")
    request_burst: int = Field(2000, ge=1, description="What an organisation may ask for at once.")
    request_max_mb: int = Field(32, ge=1, le=1024, description="Largest request body.")
    request_timeout_sec: float = Field(30, gt=0, description="Time limit of a request.")
    audit_required: bool = Field(False, description="Refuse operations while the audit log cannot be written.")
    worker_concurrency: int = Field(2, ge=1, le=64, description="Jobs at once.")
    dispatch_interval_ms: int = Field(1000, ge=10, description="How often the outbox is looked through.")
