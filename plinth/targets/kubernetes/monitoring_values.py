"""The values of charts/monitoring: what is watched, and by what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from plinth.grafana_snapshot.server import PATH as LENT
from plinth.programs.spec import Limits
from plinth.services import backup, exporters, gateway, webhooks
from plinth.services import monitoring as mon
from plinth.services import postgres as pg
from plinth.services import qdrant as qd
from plinth.services import redis as rd
from plinth.services.project_files import ProjectFiles
from plinth.services.spec import Service
from plinth.services.web_login import ALERTMANAGER, PROMETHEUS, USER
from plinth.settings import Settings
from plinth.targets.images import Images
from plinth.targets.kubernetes.naming import STATE_CLAIM, Layout, managed_address
from plinth.targets.kubernetes.store_values import image, resources, volume

# Secrets of its own: whoever watches holds no key that writes.
QDRANT, ALERTS, GRAFANA = "monitoring-qdrant", "monitoring-alerts", "monitoring-grafana"
POSTGRES, REDIS, LOGINS = "monitoring-postgres", "monitoring-redis", "monitoring-logins"
GATEWAY = "monitoring-gateway"
# By the chart's value that names its key: the key, and the secret under it.
_LOGINS = {
    "prometheusPasswordKey": ("prometheus-password", PROMETHEUS.password),
    "prometheusWebConfigKey": ("prometheus-web.yml", PROMETHEUS.config),
    "alertmanagerPasswordKey": ("alertmanager-password", ALERTMANAGER.password),
    "alertmanagerWebConfigKey": ("alertmanager-web.yml", ALERTMANAGER.config),
}
# Beside Grafana, what gives its database to backups: the key of its password, and what it may take.
COPY_PASSWORD, LENDER = "copy-password", Limits(0.25, 128)


def values(settings: Settings, names: Layout, images: Images, project: ProjectFiles) -> dict[str, Any]:
    """What an environment decides of its monitoring."""
    wanted, running = settings.monitoring, names.services
    return {
        "fullnameOverride": "monitoring",
        "stack": names.stack,
        "rules": {"runbooksUrl": wanted.runbooks_url or ""},
        "qdrant": _qdrant(settings, names),
        **({"gateway": _gateway(settings, names)} if gateway.NAME in running else {}),
        "prometheus": {
            **_program(settings, running["prometheus"], images),
            "retentionDays": wanted.prometheus.retention_days,
            "scrapeIntervalSec": wanted.prometheus.scrape_interval_sec,
        },
        "alertmanager": {
            **_program(settings, running["alertmanager"], images),
            "existingSecret": ALERTS if webhooks.secrets(settings) else "",
            **{value: key if secret else "" for value, key, secret in _receivers(settings)},
        },
        "login": {"existingSecret": LOGINS, "user": USER, **{value: key for value, (key, _) in _LOGINS.items()}},
        "grafana": _grafana(settings, names, images),
        "redisExporter": _exporter(settings, names, images, "redis", "resp", REDIS),
        "postgresExporter": _exporter(settings, names, images, "postgres", "sql", POSTGRES),
        "plinthExporter": _plinth(settings, names, images, project),
        "networkPolicy": {"egress": _egress(settings)},
    }


def secrets(settings: Settings) -> dict[str, Mapping[str, str]]:
    """Its Secrets: which of the environment's secrets is under which key."""
    ca = qd.tls_ca(settings.qdrant.tls)
    found: dict[str, Mapping[str, str]] = {
        QDRANT: {"read-only-api-key": qd.READ_ONLY_API_KEY, **({"ca.crt": ca} if ca else {})}
    }
    found[LOGINS] = dict(_LOGINS.values())
    if webhooks.secrets(settings):
        found[ALERTS] = {key: secret for _, key, secret in _receivers(settings) if secret}
    if settings.monitoring.grafana.enabled:
        copy = {COPY_PASSWORD: mon.GRAFANA_COPY_PASSWORD} if settings.backup.enabled else {}
        found[GRAFANA] = {"admin-password": mon.GRAFANA_PASSWORD, "secret-key": mon.GRAFANA_SECRET_KEY, **copy}
    if rd.is_exported(settings):
        found[REDIS] = {"passwords.json": "redis-exporter/passwords.json"}
    if settings.gateway.enabled:
        signer = gateway.tls_ca(settings.gateway.tls)
        found[GATEWAY] = {"metrics-token": gateway.METRICS_TOKEN, **({"ca.crt": signer} if signer else {})}
    if settings.monitoring.exporters.enabled and settings.postgres.enabled and not settings.managed.postgres_url:
        found[POSTGRES] = {"monitor-password": pg.MONITOR_PASSWORD}
    return found


def _egress(settings: Settings) -> dict[str, Any]:
    """Where the parts may go beside the namespace: webhooks, and a Qdrant that is not in it."""
    managed = settings.managed.qdrant_url
    ports = {_port(url.get_secret_value()) for url in webhooks.urls(settings)}
    return {
        "alertmanagerPorts": sorted(ports),
        "extra": [{"ports": [{"port": _port(managed), "protocol": "TCP"}]}] if managed else [],
    }


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (80 if parts.scheme == "http" else 443)


def lends_grafana(services: Mapping[str, Service]) -> bool:
    """Whether a container beside Grafana gives its database to backups."""
    return "grafana" in services and backup.NAME in services


def copy_url(names: Layout) -> str:
    """Where that container answers: a port above Grafana's own."""
    host = names.address("grafana", "http").partition(":")[0].replace("grafana", "grafana-copy", 1)
    return f"http://{host}:{names.services['grafana'].ports['http'] + 1}{LENT}"


def _grafana(settings: Settings, names: Layout, images: Images) -> dict[str, Any]:
    service = names.services.get("grafana")
    if service is None:
        return {"enabled": False}
    found = {"enabled": True, **_program(settings, service, images), "existingSecret": GRAFANA}
    if lends_grafana(names.services):
        found["copy"] = {
            "enabled": True,
            "image": image(images.reference(backup.PROGRAM)),
            "port": service.ports["http"] + 1,
            "passwordKey": COPY_PASSWORD,
            "resources": resources(LENDER),
        }
    return found


def _qdrant(settings: Settings, names: Layout) -> dict[str, Any]:
    elsewhere = managed_address(settings.managed, "qdrant", "http")
    return {
        "targets": [elsewhere] if elsewhere else list(names.addresses("qdrant", "http")),
        "existingSecret": QDRANT,
        "tls": _is_secured(settings),
        "caSecret": QDRANT if qd.tls_ca(settings.qdrant.tls) else "",
    }


def _gateway(settings: Settings, names: Layout) -> dict[str, Any]:
    tls = settings.gateway.tls
    return {
        "name": gateway.NAME,
        "httpPort": names.services[gateway.NAME].ports["http"],
        "workerPort": names.services[gateway.WORKER].ports["http"],
        "existingSecret": GATEWAY,
        "tls": tls is not None,
        "caSecret": GATEWAY if gateway.tls_ca(tls) else "",
    }


def _receivers(settings: Settings) -> list[tuple[str, str, str | None]]:
    """For each address and token: the chart's value that names its key, the key, and the secret where it is set."""
    given = webhooks.secrets(settings)
    named = (
        ("webhookKey", "webhook-url", "alertmanager_webhook_url"),
        ("webhookTokenKey", "webhook-token", "alertmanager_webhook_token"),
        ("ticketWebhookKey", "ticket-webhook-url", "alertmanager_ticket_webhook_url"),
        ("ticketWebhookTokenKey", "ticket-webhook-token", "alertmanager_ticket_webhook_token"),
        ("heartbeatKey", "heartbeat-url", "alertmanager_heartbeat_url"),
        ("heartbeatTokenKey", "heartbeat-token", "alertmanager_heartbeat_token"),
    )
    return [(value, key, secret if secret in given else None) for value, key, secret in named]


def _program(settings: Settings, service: Service, images: Images) -> dict[str, Any]:
    found: dict[str, Any] = {
        "image": image(images.reference(service.program)),
        "port": service.ports["http"],
        "resources": resources(service.limits),
    }
    if "data" in service.volumes:
        found["persistence"] = volume(settings, service.volumes["data"])
    return found


def _exporter(
    settings: Settings, names: Layout, images: Images, watched: str, port: str, secret: str
) -> dict[str, Any]:
    service = names.services.get(f"{watched}-exporter")
    if service is None:
        return {"enabled": False}
    return {
        "enabled": True,
        **_program(settings, service, images),
        "address": names.address(watched, port),
        "existingSecret": secret,
    }


def _plinth(settings: Settings, names: Layout, images: Images, project: ProjectFiles) -> dict[str, Any]:
    service = names.services.get(exporters.PLINTH)
    if service is None:
        return {"enabled": False}
    wanted = exporters.watched(settings, project.collections)
    scheme = "https" if _is_secured(settings) else "http"
    return {
        "enabled": True,
        **_program(settings, service, images),
        "url": f"{scheme}://{names.address('qdrant', 'http')}",
        "peers": wanted["peers"],
        "memoryLimitBytes": wanted["memory_limit_bytes"],
        "collections": wanted["collections"],
        "stateClaim": STATE_CLAIM if backup.NAME in names.services else "",
    }


def _is_secured(settings: Settings) -> bool:
    """Whether Qdrant is reached by TLS."""
    return (settings.managed.qdrant_url or "").startswith("https") or settings.qdrant.tls is not None
