"""The gateway, and the worker that runs its jobs (S0-04, S4)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from plinth.programs.healthchecks import bash_http, bash_tcp
from plinth.programs.spec import OWN_IMAGE, Container, Limits, Program
from plinth.qdrant.spec import CollectionSpec
from plinth.services.postgres import database_secret
from plinth.services.qdrant import API_KEY
from plinth.services.qdrant import tls_ca as qdrant_ca
from plinth.services.redis import PASSWORD as REDIS_PASSWORD
from plinth.services.spec import File, Health, Scrape, Service
from plinth.settings import GATEWAY_DATABASE, Settings, Tls
from plinth.settings.tiers import Tier

NAME, WORKER = "gateway", "gateway-worker"
SIGNING_KEY = "gateway_signing_key"
METRICS_TOKEN = "gateway_metrics_token"  # noqa: S105 - the secret's name
PROVIDER_KEY = "gateway_provider_key"
TRACING_HEADERS = "gateway_tracing_headers"
# The certificate, its key, and its CA certificate.
TLS = ("gateway_tls_cert", "gateway_tls_key", "gateway_tls_ca")
AUDIT = "audit"
CONFIG = "gateway.yaml"
# An event loop uses one core: as many of them as the tier has cores and memory for.
PROCESSES = {Tier.small: 1, Tier.medium: 2, Tier.large: 3}
# The path of the audit log in a container.
AUDIT_DIRECTORY = "/var/lib/plinth/audit"


def secrets(settings: Settings) -> Mapping[str, SecretStr | None]:
    """Return the gateway's own secrets; None for one that is to be generated."""
    wanted = settings.gateway
    if not wanted.enabled:
        return {}
    secrets: dict[str, SecretStr | None] = {METRICS_TOKEN: None}
    if wanted.tokens.jwks is None:
        secrets |= {SIGNING_KEY: wanted.tokens.signing_key}
    if wanted.provider.api_key:
        secrets |= {PROVIDER_KEY: wanted.provider.api_key}
    if wanted.tracing and wanted.tracing.headers:
        secrets |= {TRACING_HEADERS: wanted.tracing.headers}
    return secrets


def tls_ca(tls: Tls | None) -> str | None:
    """Return the name of the CA certificate's secret; None without TLS, and where the system trust store is used."""
    return TLS[2] if tls and tls.names_signer else None


def services(settings: Settings, collections: Sequence[CollectionSpec]) -> list[Service]:
    """Return the server, which dispatches jobs too, and the worker that runs them."""
    values = _values(settings, collections)
    return [_server(settings, values), _worker(settings, values)]


def _server(settings: Settings, values: Mapping[str, Any]) -> Service:
    wanted = settings.gateway
    tls, ca = wanted.tls is not None, tls_ca(wanted.tls)
    server = {
        "signing": SIGNING_KEY if wanted.tokens.jwks is None else None,
        "metrics": METRICS_TOKEN,
        **({"cert": TLS[0], "key": TLS[1]} if tls else {}),
    }
    return _service(
        settings,
        NAME,
        "server",
        {**values, "secrets": {**values["secrets"], **server}},
        ports={"http": wanted.http_port, "grpc": wanted.grpc_port},
        health=Health("http", "http", "/readyz", tls=tls, ca=ca),
        scrape=Scrape("http", secret=METRICS_TOKEN, scheme="https" if tls else "http", ca=ca),
        # Bash speaks no TLS.
        check=bash_tcp("http") if tls else bash_http("http", "/readyz"),
    )


def _worker(settings: Settings, values: Mapping[str, Any]) -> Service:
    """Return the worker: it serves no requests, has no token key, and its metrics require none."""
    return _service(
        settings,
        WORKER,
        "worker",
        values,
        ports={"http": settings.gateway.worker_port},
        health=Health("http", "http", "/metrics"),
        scrape=Scrape("http"),
        check=bash_http("http", "/metrics"),
    )


def _service(
    settings: Settings,
    name: str,
    role: str,
    values: Mapping[str, Any],
    *,
    ports: Mapping[str, int],
    health: Health,
    scrape: Scrape,
    check: tuple[str, ...],
) -> Service:
    return Service(
        name=name,
        program=Program(
            image=OWN_IMAGE,
            binaries=(),
            package="",
            substitute=(sys.executable, "-m", "plinth.gateway"),
            container=Container(
                entrypoint=("python3", "-m", "plinth.gateway"),
                volumes={AUDIT: AUDIT_DIRECTORY},
                check=check,
            ),
        ),
        arguments=(role, "--config-path", "{{ file('" + CONFIG + "') }}"),
        files={CONFIG: File("config/gateway/gateway.yaml.j2", {**values, "role": role})},
        secret_files=tuple(secret for secret in values["secrets"].values() if secret),
        ports=ports,
        volumes={AUDIT: 1},
        health=health,
        scrape=scrape,
        limits=Limits(settings.size.cpus, settings.size.gateway_memory_mib),
        needs=("qdrant", "postgres", "redis"),
        run_as=(f"plinth-{name}",),
        optional=True,
    )


def _values(settings: Settings, collections: Sequence[CollectionSpec]) -> dict[str, Any]:
    """Return the template values of server and worker, with the names of the secrets that both need."""
    wanted = settings.gateway
    return {
        "gateway": wanted,
        "processes": wanted.processes or PROCESSES[settings.tier],
        "database": GATEWAY_DATABASE,
        "scheme": "https" if settings.qdrant.tls else "http",
        "collection_tokens": settings.qdrant.jwt_rbac,
        "collections": [spec.to_data() for spec in collections],
        "secrets": {
            "qdrant": API_KEY if settings.qdrant.auth else None,
            "ca": qdrant_ca(settings.qdrant.tls),
            "postgres": database_secret(GATEWAY_DATABASE),
            "redis": REDIS_PASSWORD,
            "provider": PROVIDER_KEY if wanted.provider.api_key else None,
            "tracing": TRACING_HEADERS if wanted.tracing and wanted.tracing.headers else None,
        },
    }
