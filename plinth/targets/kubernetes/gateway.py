"""The values of charts/gateway: whom it asks, who may call it, and what its two parts hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from plinth.services import gateway as gw
from plinth.services import postgres as pg
from plinth.services import qdrant as qd
from plinth.services import redis as rd
from plinth.services.project_files import ProjectFiles
from plinth.settings import GATEWAY_DATABASE, Managed, Settings
from plinth.settings.gateway import GatewayTracing
from plinth.targets.images import Images
from plinth.targets.kubernetes.naming import Layout
from plinth.targets.kubernetes.store_values import GRACE_MARGIN_S, MONITORING, image, resources

# Secrets of its own: of the stores for both parts, and what admits callers for the server alone.
STORES, CALLERS, TLS = "gateway-stores", "gateway-callers", "gateway-tls"
QDRANT_CA = "qdrant-ca.crt"
METRICS = "metrics-token"


def values(settings: Settings, names: Layout, images: Images, project: ProjectFiles) -> dict[str, Any]:
    """What an environment decides of its gateway."""
    wanted, server, worker = settings.gateway, names.services[gw.NAME], names.services[gw.WORKER]
    tracing = wanted.tracing
    return {
        "fullnameOverride": gw.NAME,
        "image": image(images.reference(server.program)),
        "replicas": wanted.replicas,
        "autoscaling": {
            "enabled": wanted.replicas_max is not None,
            "minReplicas": wanted.replicas,
            "maxReplicas": wanted.replicas_max or wanted.replicas,
        },
        "service": {"httpPort": server.ports["http"], "grpcPort": server.ports["grpc"]},
        "tls": {"existingSecret": TLS if wanted.tls else ""},
        "resources": resources(server.limits),
        "worker": {
            "replicas": wanted.worker_replicas,
            "concurrency": wanted.worker_concurrency,
            "port": worker.ports["http"],
            "resources": resources(worker.limits),
        },
        **_stores(settings, names),
        "tokens": {
            "existingSecret": "" if wanted.tokens.jwks else CALLERS,
            "jwks": wanted.tokens.jwks or "",
            "issuer": wanted.tokens.issuer,
            "audience": wanted.tokens.audience,
            "organisationClaim": wanted.tokens.organisation_claim,
            "scopesClaim": wanted.tokens.scopes_claim,
        },
        "metrics": {"existingSecret": CALLERS, "tokenKey": METRICS},
        "provider": {
            "name": wanted.provider.name,
            "dimension": wanted.provider.dimension,
            "url": wanted.provider.url or "",
            "model": wanted.provider.model or "",
            "existingSecret": STORES if wanted.provider.api_key else "",
        },
        "tracing": {
            "endpoint": tracing.endpoint if tracing else "",
            "sampleRatio": tracing.sample_ratio if tracing else GatewayTracing.model_fields["sample_ratio"].default,
            "existingSecret": STORES if tracing and tracing.headers else "",
        },
        "cacheTtlSec": wanted.cache_ttl_sec,
        "auditRequired": wanted.audit_required,
        "dispatchIntervalMs": wanted.dispatch_interval_ms,
        "limits": {
            "requestsPerSecond": wanted.requests_per_second,
            "requestBurst": wanted.request_burst,
            "requestMaxMb": wanted.request_max_mb,
            "requestTimeoutSec": wanted.request_timeout_sec,
        },
        "collections": [spec.to_data() for spec in project.collections],
        "terminationGracePeriodSeconds": server.stop_grace_s + GRACE_MARGIN_S,
        "networkPolicy": {"scrapers": MONITORING, "egress": {"ports": sorted(set(_ports(settings)))}},
    }


def secrets(settings: Settings) -> dict[str, Mapping[str, str]]:
    """Its Secrets: which of the environment's secrets is under which key."""
    wanted, ca = settings.gateway, qd.tls_ca(settings.qdrant.tls)
    stores = {
        "postgres-password": pg.database_secret(GATEWAY_DATABASE),
        "redis-password": rd.PASSWORD,
        **({"qdrant-api-key": qd.API_KEY} if settings.qdrant.auth else {}),
        **({QDRANT_CA: ca} if ca else {}),
        **({"provider-api-key": gw.PROVIDER_KEY} if wanted.provider.api_key else {}),
        **({"tracing-headers": gw.TRACING_HEADERS} if wanted.tracing and wanted.tracing.headers else {}),
    }
    callers = {METRICS: gw.METRICS_TOKEN, **({} if wanted.tokens.jwks else {"signing-key": gw.SIGNING_KEY})}
    served = {TLS: dict(zip(("tls.crt", "tls.key"), gw.TLS, strict=False))} if wanted.tls else {}
    return {STORES: stores, CALLERS: callers, **served}


def _stores(settings: Settings, names: Layout) -> dict[str, Any]:
    managed = settings.managed
    scheme = "https" if settings.qdrant.tls or (managed.qdrant_url or "").startswith("https") else "http"
    return {
        "qdrant": {
            "url": f"{scheme}://{names.address('qdrant', 'http')}",
            "existingSecret": STORES if settings.qdrant.auth else "",
            "apiKeyKey": "qdrant-api-key",
            "collectionTokens": settings.qdrant.jwt_rbac,
            "caSecret": STORES if qd.tls_ca(settings.qdrant.tls) else "",
            "caKey": QDRANT_CA,
        },
        "postgres": {
            **_at(names, "postgres", "sql"),
            "database": GATEWAY_DATABASE,
            "user": GATEWAY_DATABASE,
            "existingSecret": STORES,
        },
        "redis": {
            **_at(names, "redis", "resp"),
            "tls": (managed.redis_url or "").startswith("rediss:"),
            "existingSecret": STORES,
        },
    }


def _at(names: Layout, service: str, port: str) -> dict[str, Any]:
    host, _, number = names.address(service, port).rpartition(":")
    return {"host": host, "port": int(number)}


def _ports(settings: Settings) -> Iterator[int]:
    """Of what lies outside of the namespace: provider, keys of tokens, collector, and stores that someone else runs."""
    wanted = settings.gateway
    collector = wanted.tracing.endpoint if wanted.tracing else None
    for url in (wanted.provider.url, wanted.tokens.jwks, collector, *_elsewhere(settings.managed)):
        if url:
            parts = urlsplit(url)
            yield parts.port or (80 if parts.scheme == "http" else 443)


def _elsewhere(managed: Managed) -> tuple[str | None, ...]:
    return managed.qdrant_url, managed.qdrant_grpc_url, managed.postgres_url, managed.redis_url
