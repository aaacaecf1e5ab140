"""The outputs of an environment: what people, programs and the other commands read of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from plinth.deployment.environment_plan import EnvironmentPlan
from plinth.services import backup, gateway, mutual_tls, neo4j, qdrant
from plinth.services import postgres as pg
from plinth.services.monitoring import GRAFANA_PASSWORD, GRAFANA_SECRET_KEY, OVERVIEW
from plinth.services.mutual_tls import PLINTH
from plinth.services.web_login import ALERTMANAGER, PROMETHEUS, USER
from plinth.settings import Settings, TargetName


def qdrant_url(plan: EnvironmentPlan, node: int = 0, port: str = "http") -> str:
    """The address of a Qdrant node from this machine."""
    scheme = "https" if plan.settings.qdrant.tls else "http"
    return f"{scheme}://{plan.target.reach('qdrant', port, node)}"


def service_url(plan: EnvironmentPlan, port: str = "http") -> str:
    """The address of Qdrant as a whole: where it is published or someone else runs it, else its first node's."""
    settings = plan.settings
    managed = settings.managed.qdrant_grpc_url if port == "grpc" else settings.managed.qdrant_url
    published = settings.kubernetes.qdrant_url if settings.target is TargetName.kubernetes and port == "http" else None
    return managed or published or qdrant_url(plan, port=port)


def qdrant_ca(settings: Settings, secrets: Mapping[str, pulumi.Output[str]]) -> pulumi.Output[str] | None:
    """Who signed the certificate of Qdrant; None for one that the machine's authorities signed."""
    return None if settings.managed.qdrant_url else secrets.get(qdrant.TLS_CA)


def outputs(plan: EnvironmentPlan, secrets: Mapping[str, pulumi.Output[str]]) -> dict[str, Any]:
    """What people and programs read: where each service is and how to get in. A part with a secret is one."""
    settings, running, target = plan.settings, plan.running, plan.target
    names = {service.name for service in running}
    names |= {"postgres"} if settings.postgres.enabled else set()
    names |= {"redis"} if settings.redis.enabled else set()

    def url(service: str, port: str = "http") -> str:
        scheme = "https" if service == gateway.NAME and settings.gateway.tls else "http"
        return f"{scheme}://{target.reach(service, port)}"

    def secret(name: str) -> pulumi.Output[str] | None:
        return secrets.get(name)

    found: dict[str, Any] = {
        "qdrant": {
            "url": service_url(plan),
            "grpc_url": service_url(plan, port="grpc"),
            "api_key": secret("qdrant_api_key"),
            "read_only_api_key": secret("qdrant_read_only_api_key"),
        }
    }
    if qdrant.ALT_API_KEY in secrets:
        found["qdrant"]["alt_api_key"] = secrets[qdrant.ALT_API_KEY]
    nodes = next((target.nodes(service) for service in running if service.name == "qdrant"), [])
    if len(nodes) > 1:
        found["qdrant"]["nodes"] = {node.name: qdrant_url(plan, node.number) for node in nodes}
    if (ca_cert := qdrant_ca(settings, secrets)) is not None:
        found["qdrant"]["ca_cert"] = ca_cert
    if "postgres" in names:
        host, _, port = target.reach("postgres", "sql").rpartition(":")
        found["postgres"] = {
            "host": host,
            "port": int(port),
            "user": pg.superuser(settings),
            "password": secret(pg.SUPERUSER_PASSWORD),
            "databases": {
                database.name: {"owner": database.role, "password": secret(pg.database_secret(database.role))}
                for database in settings.databases
            },
        }
    if "redis" in names:
        host, _, port = target.reach("redis", "resp").rpartition(":")
        found["redis"] = {"host": host, "port": int(port), "password": secret("redis_password")}
        if (settings.managed.redis_url or "").startswith("rediss:"):
            found["redis"]["tls"] = True
    if "neo4j" in names:
        found["neo4j"] = {
            "url": url("neo4j"),
            "bolt_url": f"bolt://{target.reach('neo4j', 'bolt')}",
            "user": neo4j.USER,
            "password": secret(neo4j.PASSWORD),
        }
    if gateway.NAME in names:
        found["gateway"] = {
            "url": url(gateway.NAME),
            "grpc_url": url(gateway.NAME, "grpc"),
            "signing_key": secret(gateway.SIGNING_KEY),
            "metrics_token": secret(gateway.METRICS_TOKEN),
            "worker_metrics_url": f"{url(gateway.WORKER)}/metrics",
        }
        if (signer := gateway.tls_ca(settings.gateway.tls)) is not None:
            found["gateway"]["ca_cert"] = secret(signer)
    for name in ("prometheus", "alertmanager", "grafana", "loki", "fluent-bit"):
        if name in names:
            found[name.replace("-", "_")] = {"url": url(name)}
    for name, login in (("prometheus", PROMETHEUS), ("alertmanager", ALERTMANAGER)):
        if name in names:
            found[name] |= {"user": USER, "password": secret(login.password)}
    if "grafana" in names:
        found["grafana"] |= {
            "dashboard": f"{url('grafana')}/d/{OVERVIEW}",
            "user": "admin",
            "password": secret(GRAFANA_PASSWORD),
            "secret_key": secret(GRAFANA_SECRET_KEY),
        }
    if backup.NAME in names:
        found["backup"] = {
            "repository": settings.backup.repository or target.volume(backup.NAME, "repository"),
            "password": secret(backup.PASSWORD),
        }
        if settings.target is not TargetName.kubernetes:
            # There it comes by schedule and goes again.
            found["backup"]["metrics_url"] = f"{url(backup.NAME)}/metrics"
        if settings.backup.s3:
            found["backup"] |= {
                "access_key_id": secret(backup.S3_KEY_ID),
                "secret_access_key": secret(backup.S3_SECRET),
            }
        if settings.backup.rest:
            found["backup"]["rest_password"] = secret(backup.REST_PASSWORD)
        if settings.backup.ca_cert:
            found["backup"]["ca_cert"] = secret(backup.CA)
    found["exporters"] = {
        name.removesuffix("-exporter"): {"url": f"{url(name)}/metrics"}
        for name in sorted(names)
        if name.endswith("-exporter")
    }
    for service in running:
        if service.identity in ("server", "peer"):
            where = found["exporters"].get(service.name.removesuffix("-exporter"), found.get(service.name))
            where["url"] = where["url"].replace("http:", "https:", 1)
            where["ca_cert"] = secret(mutual_tls.CA)
            where |= {"client_cert": secret(PLINTH.cert), "client_key": secret(PLINTH.key)}
    found["left_out"] = target.left_out
    found["deployed"] = {
        "qdrant_version": settings.qdrant.version,
        "qdrant_nodes": settings.qdrant.nodes,
    }
    return found
