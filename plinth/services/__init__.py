"""The services of an environment, target-independent, from its settings."""

from __future__ import annotations

from collections.abc import Collection

from plinth.services import backup, exporters, gateway, logs, monitoring, neo4j, postgres, qdrant, redis
from plinth.services.project_files import ProjectFiles
from plinth.services.spec import Service
from plinth.settings import Settings, TargetName

__all__ = ["Service", "services"]


def services(settings: Settings, project: ProjectFiles, left_out: Collection[str] = ()) -> list[Service]:
    """Return every enabled service, each after those that it needs.

    Skipped and externally managed services are not among them.
    """
    collections = project.collections
    found = [] if settings.managed.qdrant_url else [qdrant.service(settings)]
    if settings.postgres.enabled and not settings.managed.postgres_url:
        found.append(postgres.service(settings))
    if settings.redis.enabled and not settings.managed.redis_url:
        found.append(redis.service(settings))
    if settings.neo4j.enabled and "neo4j" not in left_out:
        found.append(neo4j.service(settings))
    if settings.gateway.enabled:
        found += [service for service in gateway.services(settings, collections) if service.name not in left_out]
    backs_up = settings.backup.enabled and backup.NAME not in left_out
    if backs_up and settings.target is TargetName.kubernetes and found:
        # There the exporter uses the backups' volume, and not the reverse: backups come first.
        found.append(backup.service(settings, found))
    if settings.monitoring.exporters.enabled:
        found += [service for service in exporters.services(settings) if service.name not in left_out]
    if settings.monitoring.alertmanager.enabled:
        found.append(monitoring.alertmanager(settings))
    keeps_logs = settings.monitoring.loki.enabled and not {logs.LOKI, logs.AGENT} & set(left_out)
    if keeps_logs:
        found += logs.services(settings, left_out)
    if settings.monitoring.grafana.enabled and "grafana" not in left_out:
        found.append(monitoring.grafana(settings, project.dashboards, logs=keeps_logs))
    if settings.monitoring.exporters.enabled and exporters.PLINTH not in left_out:
        found.append(exporters.plinth(settings, found, collections))
    if backs_up and settings.target is not TargetName.kubernetes:
        found.append(backup.service(settings, found))
    if settings.monitoring.prometheus.enabled:
        found.append(monitoring.prometheus(settings, found, project.rules))
    return found
