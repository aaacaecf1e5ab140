"""The values of each chart: pure functions from settings and services.

The charts work alone, so they say ports, accounts, probes and hardening themselves; here is what an environment
decides. Config text comes of the same templates as on the other targets. No secret is among the values: they name the
Secrets that hold them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from plinth.programs.spec import Limits
from plinth.services import redis as rd
from plinth.services.render import files
from plinth.services.spec import Service
from plinth.settings import Settings
from plinth.targets.kubernetes.naming import Layout, claims_of, object_name

KEYS, TLS = "qdrant-keys", "qdrant-tls"
POSTGRES, REDIS = "postgres-keys", "redis-keys"
EXPORTER_KEY = "exporter-password"
# What a pod may write beside its volumes: logs, /tmp and its own layer.
SCRATCH_REQUEST, SCRATCH_LIMIT_GIB = "256Mi", 1
# A stop takes the service's own grace, and the time in which the services forget the pod.
GRACE_MARGIN_S = 10
# Who scrapes and who exports, for the network policies.
MONITORING = [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "monitoring"}}}]
# What the chart says itself, from the other values and the Secrets.
OF_THE_CHART: Mapping[str, tuple[str, ...]] = {
    "service": (
        "host",
        "http_port",
        "grpc_port",
        "api_key",
        "read_only_api_key",
        "alt_api_key",
        "enforce_internal_auth",
        "enable_tls",
    ),
    "storage": ("storage_path", "snapshots_path"),
}


def image(reference: str) -> dict[str, str]:
    """An image reference as charts want it, in parts."""
    name, _, digest = reference.partition("@")
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        path, tag = name, ""
    registry, slash, repository = path.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, repository = "docker.io", path if slash else f"library/{path}"
    # A tag that is not given stays the chart's: beside a digest it says nothing.
    parts = {"registry": registry, "repository": repository, "tag": tag, "digest": digest}
    return {key: part for key, part in parts.items() if part}


def resources(limits: Limits) -> dict[str, dict[str, str]]:
    """Requests that are the limits, so that a node is never promised twice."""
    wanted = {"cpu": f"{limits.cpus:g}", "memory": f"{limits.memory_mib}Mi"}
    return {
        "requests": {**wanted, "ephemeral-storage": SCRATCH_REQUEST},
        "limits": {**wanted, "ephemeral-storage": f"{SCRATCH_LIMIT_GIB}Gi"},
    }


def qdrant(settings: Settings, service: Service, names: Layout, reference: str, root: Path) -> dict[str, Any]:
    """charts/qdrant."""
    wanted = settings.qdrant
    return {
        "fullnameOverride": object_name(service.name),
        "image": image(reference),
        "replicas": wanted.nodes,
        "cluster": {"allowSingleReplica": wanted.allow_single_replica},
        "config": _qdrant_config(service, names, root),
        "auth": {
            "enabled": wanted.auth,
            "existingSecret": KEYS if wanted.auth else "",
            "altApiKeyKey": "alt-api-key" if wanted.auth and wanted.alt_api_key else "",
        },
        "tls": {
            "enabled": wanted.tls is not None,
            "existingSecret": TLS if wanted.tls else "",
            "caKey": "" if wanted.tls and wanted.tls.cert and not wanted.tls.ca_cert else "ca.crt",
        },
        "service": {"httpPort": service.ports["http"], "grpcPort": service.ports["grpc"]},
        "persistence": {name: volume(settings, gib) for name, gib in claims_of(service).items()},
        "tier": settings.tier.value,
        "resources": resources(service.limits),
        # Every node keeps its revision until the gate lets it go.
        "updateStrategy": {"partition": wanted.nodes if wanted.nodes > 1 else 0},
        "terminationGracePeriodSeconds": service.stop_grace_s + GRACE_MARGIN_S,
        "networkPolicy": {"clients": MONITORING},
    }


def postgres(settings: Settings, service: Service, reference: str) -> dict[str, Any]:
    """charts/postgres; its databases are resources of their own, as on every target."""
    return {
        **_single(settings, service, reference),
        "auth": {"existingSecret": POSTGRES, "superuserKey": "postgres-password"},
        "memoryMib": settings.size.postgres_memory_mib,
        "maxConnections": settings.size.postgres_connections,
        "service": {"port": service.ports["sql"]},
    }


def redis(settings: Settings, service: Service, reference: str) -> dict[str, Any]:
    """charts/redis."""
    return {
        **_single(settings, service, reference),
        "auth": {
            "existingSecret": REDIS,
            "passwordKey": "redis-password",
            "exporterPasswordKey": EXPORTER_KEY if rd.is_exported(settings) else "",
        },
        "maxmemoryMib": settings.size.redis_memory_mib,
        "maxmemoryPolicy": settings.redis.maxmemory_policy,
        "appendonly": settings.redis.appendonly,
        "service": {"port": service.ports["resp"]},
    }


def _single(settings: Settings, service: Service, reference: str) -> dict[str, Any]:
    """What the charts of one pod with one volume share."""
    return {
        "fullnameOverride": object_name(service.name),
        "image": image(reference),
        "persistence": volume(settings, service.volumes["data"]),
        "resources": resources(service.limits),
        "networkPolicy": {"clients": MONITORING},
    }


def _qdrant_config(service: Service, names: Layout, root: Path) -> dict[str, Any]:
    """Qdrant's configuration, without what the chart says itself and without any key."""
    text = files(service, names, defaultdict(str), root)["config.yaml"]
    config: dict[str, Any] = yaml.safe_load(text)
    for section, keys in OF_THE_CHART.items():
        config[section] = {key: value for key, value in config[section].items() if key not in keys}
    return {key: value for key, value in config.items() if key not in ("cluster", "tls")}


def volume(settings: Settings, gib: int) -> dict[str, str]:
    """A volume's size and class."""
    return {"size": f"{gib}Gi", "storageClass": settings.kubernetes.storage_class or ""}
