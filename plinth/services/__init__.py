"""Services, target-independent: what an environment needs, from its settings."""

from __future__ import annotations

from pathlib import Path

from plinth.services.exporters import exporters
from plinth.services.monitoring import alertmanager, grafana, prometheus
from plinth.services.postgres import postgres
from plinth.services.qdrant import qdrant
from plinth.services.redis import redis
from plinth.services.spec import Service
from plinth.settings import Settings

__all__ = ["Service", "services"]


def services(settings: Settings, root: Path) -> list[Service]:
    """Every enabled service, in an order in which each stands behind those it needs."""
    found = [qdrant(settings)]
    if settings.postgres.enabled:
        found.append(postgres(settings))
    if settings.redis.enabled:
        found.append(redis(settings))
    if settings.monitoring.exporters.enabled:
        found += exporters(settings)
    if settings.monitoring.alertmanager.enabled:
        found.append(alertmanager(settings))
    if settings.monitoring.grafana.enabled:
        found.append(grafana(settings))
    if settings.monitoring.prometheus.enabled:
        found.append(prometheus(settings, found, root))
    return found
