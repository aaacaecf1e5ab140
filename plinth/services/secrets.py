"""The secrets of an environment by name: those of the settings, and those to generate."""

from __future__ import annotations

from pydantic import SecretStr

from plinth.services.backup import PASSWORD as BACKUP_PASSWORD
from plinth.services.backup import REST_PASSWORD, S3_KEY_ID, S3_SECRET
from plinth.services.gateway import secrets as gateway_secrets
from plinth.services.monitoring import GRAFANA_COPY_PASSWORD, GRAFANA_PASSWORD, GRAFANA_SECRET_KEY
from plinth.services.neo4j import PASSWORD as NEO4J_PASSWORD
from plinth.services.postgres import MONITOR_PASSWORD, SUPERUSER_PASSWORD, database_secret
from plinth.services.qdrant import ALT_API_KEY, API_KEY, READ_ONLY_API_KEY
from plinth.services.redis import EXPORTER_PASSWORD, is_exported
from plinth.services.redis import PASSWORD as REDIS_PASSWORD
from plinth.services.web_login import passwords as web_passwords
from plinth.services.webhooks import secrets as webhook_secrets
from plinth.settings import Settings, TargetName

# The key of other secrets' checksums, where those are visible in plain text.
CHECKSUM_KEY = "checksum_key"


def secrets(settings: Settings) -> dict[str, SecretStr | None]:
    """Return each secret that the enabled services name; None for one that is to be generated."""
    found: dict[str, SecretStr | None] = {}
    if settings.qdrant.auth:
        found[API_KEY] = settings.qdrant.api_key
        if settings.qdrant.alt_api_key:
            found[ALT_API_KEY] = settings.qdrant.alt_api_key
        found[READ_ONLY_API_KEY] = settings.qdrant.read_only_api_key
    if settings.postgres.enabled:
        found[SUPERUSER_PASSWORD] = settings.postgres.superuser_password
        if not settings.managed.postgres_url:
            found[MONITOR_PASSWORD] = None
        found |= {database_secret(database.role): database.password for database in settings.databases}
    if settings.redis.enabled:
        found[REDIS_PASSWORD] = settings.redis.password
    if is_exported(settings):
        found[EXPORTER_PASSWORD] = None
    if settings.neo4j.enabled:
        found[NEO4J_PASSWORD] = settings.neo4j.password
    if settings.monitoring.grafana.enabled:
        found[GRAFANA_PASSWORD] = settings.monitoring.grafana.admin_password
        found[GRAFANA_SECRET_KEY] = settings.monitoring.grafana.secret_key
        if settings.target is TargetName.kubernetes and settings.backup.enabled:
            found[GRAFANA_COPY_PASSWORD] = None
    found |= gateway_secrets(settings)
    if settings.target is TargetName.kubernetes:
        found[CHECKSUM_KEY] = None
    found |= web_passwords(settings)
    found |= webhook_secrets(settings)
    if settings.backup.enabled:
        found[BACKUP_PASSWORD] = settings.backup.password
        if settings.backup.s3:
            found[S3_KEY_ID] = settings.backup.s3.access_key_id
            found[S3_SECRET] = settings.backup.s3.secret_access_key
        if settings.backup.rest:
            found[REST_PASSWORD] = settings.backup.rest.password
    return found
