"""The gateway, and the worker that does its jobs (S0-04, S4)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from plinth.qdrant.spec import load_specs
from plinth.services.checks import bash_tcp
from plinth.services.postgres import database_secret
from plinth.services.qdrant import API_KEY, tls_ca
from plinth.services.redis import PASSWORD as REDIS_PASSWORD
from plinth.services.spec import OWN_IMAGE, Container, File, Health, Limits, Program, Scrape, Service
from plinth.settings import GATEWAY_DATABASE, Settings

NAME, WORKER = "gateway", "gateway-worker"
SIGNING_KEY = "gateway_signing_key"
METRICS_TOKEN = "gateway_metrics_token"  # noqa: S105 - the secret's name
PROVIDER_KEY = "gateway_provider_key"
AUDIT = "audit"
CONFIG = "gateway.yaml"
# Where a container has its audit log.
AUDIT_DIRECTORY = "/var/lib/plinth/audit"


def secrets(settings: Settings) -> Mapping[str, SecretStr | None]:
    """What the gateway alone needs; None where one is to be generated."""
    wanted = settings.gateway
    if not wanted.enabled:
        return {}
    secrets: dict[str, SecretStr | None] = {METRICS_TOKEN: None}
    if wanted.tokens.jwks is None:
        secrets |= {SIGNING_KEY: wanted.tokens.signing_key}
    if wanted.provider.api_key:
        secrets |= {PROVIDER_KEY: wanted.provider.api_key}
    return secrets


def services(settings: Settings, root: Path) -> list[Service]:
    """The server, which dispatches jobs too, and the worker that does them."""
    values = _values(settings, root)
    return [
        _service(
            settings,
            NAME,
            "server",
            values,
            ports={"http": settings.gateway.http_port, "grpc": settings.gateway.grpc_port},
            health_path="/readyz",
            scrape=Scrape("http", secret=METRICS_TOKEN),
        ),
        _service(
            settings,
            WORKER,
            "worker",
            values,
            ports={"http": settings.gateway.worker_port},
            health_path="/metrics",
            scrape=Scrape("http"),
        ),
    ]


def _service(
    settings: Settings,
    name: str,
    role: str,
    values: Mapping[str, Any],
    *,
    ports: Mapping[str, int],
    health_path: str,
    scrape: Scrape,
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
                check=bash_tcp("http"),
            ),
        ),
        arguments=(role, "--config-path", "{{ file('" + CONFIG + "') }}"),
        files={CONFIG: File("config/gateway/gateway.yaml.j2", {**values, "role": role})},
        secret_files=tuple(name for name in values["secrets"].values() if name),
        ports=ports,
        volumes={AUDIT: 1},
        health=Health("http", "http", health_path),
        scrape=scrape,
        limits=Limits(settings.size.cpus, 768),
        needs=("qdrant", "postgres", "redis"),
        run_as=(f"plinth-{name}",),
    )


def _values(settings: Settings, root: Path) -> dict[str, Any]:
    collections = settings.collections
    specs = load_specs(root / collections.directory, collections.only, collections.overrides)
    wanted = settings.gateway
    return {
        "gateway": wanted,
        "database": GATEWAY_DATABASE,
        "scheme": "https" if settings.qdrant.tls else "http",
        "collections": [spec.model_dump(mode="json", exclude_none=True) for spec in specs],
        "secrets": {
            "qdrant": API_KEY if settings.qdrant.auth else None,
            "ca": tls_ca(settings.qdrant.tls),
            "postgres": database_secret(GATEWAY_DATABASE),
            "redis": REDIS_PASSWORD,
            "signing": SIGNING_KEY if wanted.tokens.jwks is None else None,
            "metrics": METRICS_TOKEN,
            "provider": PROVIDER_KEY if wanted.provider.api_key else None,
        },
    }
