"""What a change of each setting does to an environment that is deployed.

One entry covers a key and all keys below it; the longest entry that matches counts. A unit test compares the entries
with what :func:`plinth.services.services` derives from changed settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Effect(StrEnum):
    """What `plinth up` does about a changed value."""

    in_place = "in place"
    """No service restarts."""
    restarts = "restarts"
    """The services that use the value restart; their data stays."""
    grows = "grows"
    """The volume grows on kubernetes; elsewhere it has no size of its own."""
    starts_or_stops = "starts or stops"
    """Services are added or removed; data that they stored stays."""
    replaces = "replaces"
    """Every resource is created again in another place; the data is not moved."""
    refused = "refused"
    """It is chosen before the first deploy."""


EFFECTS: Mapping[str, tuple[Effect, str]] = {
    "target": (Effect.replaces, "back up and restore to move the data"),
    "tier": (Effect.restarts, "volumes grow on kubernetes; a smaller volume is refused"),
    "bind_address": (Effect.restarts, ""),
    "accepted_advisories": (Effect.in_place, "read by the check before a deploy"),
    "qdrant": (Effect.restarts, ""),
    "qdrant.engine": (Effect.restarts, "refused while the other server's data is there"),
    "qdrant.nodes": (Effect.starts_or_stops, "a node that holds shards is not removed"),
    "qdrant.version": (Effect.restarts, "one minor version at a time, never back"),
    "qdrant.allow_single_replica": (Effect.in_place, "read by the check before a deploy"),
    "qdrant.settle_timeout_sec": (Effect.in_place, "read by the next change of a cluster"),
    "qdrant.disk_gib": (Effect.grows, "a smaller value is refused"),
    "collections": (Effect.in_place, "a new vector size, distance or shard number is refused"),
    "postgres": (Effect.restarts, ""),
    "postgres.enabled": (Effect.starts_or_stops, ""),
    "postgres.databases": (Effect.in_place, "a database that is no longer named stays"),
    "postgres.databases.password": (Effect.in_place, "the role's password is changed"),
    "postgres.superuser_password": (Effect.restarts, "the role's password is changed; its users restart"),
    "postgres.disk_gib": (Effect.grows, "a smaller value is refused"),
    "redis": (Effect.restarts, ""),
    "redis.enabled": (Effect.starts_or_stops, ""),
    "redis.disk_gib": (Effect.grows, "a smaller value is refused"),
    "neo4j": (Effect.restarts, ""),
    "neo4j.enabled": (Effect.starts_or_stops, ""),
    "neo4j.disk_gib": (Effect.grows, "a smaller value is refused"),
    "monitoring": (Effect.restarts, ""),
    "monitoring.prometheus.enabled": (Effect.starts_or_stops, ""),
    "monitoring.alertmanager.enabled": (Effect.starts_or_stops, ""),
    "monitoring.grafana.enabled": (Effect.starts_or_stops, ""),
    "monitoring.loki.enabled": (Effect.starts_or_stops, ""),
    "monitoring.exporters.enabled": (Effect.starts_or_stops, ""),
    "gateway": (Effect.restarts, ""),
    "gateway.enabled": (Effect.starts_or_stops, ""),
    "backup": (Effect.restarts, ""),
    "backup.enabled": (Effect.starts_or_stops, ""),
    "backup.disk_gib": (Effect.grows, "a smaller value is refused"),
    "slo": (Effect.in_place, "read by the next load gate"),
    "docker": (Effect.restarts, ""),
    "docker.host": (Effect.replaces, "back up and restore to move the data"),
    "kubernetes": (Effect.restarts, ""),
    "kubernetes.kubeconfig": (Effect.in_place, "the same cluster under another file; another cluster is another place"),
    "kubernetes.context": (Effect.replaces, "back up and restore to move the data"),
    "kubernetes.namespace": (Effect.replaces, "back up and restore to move the data"),
    "kubernetes.storage_class": (Effect.refused, "Kubernetes keeps the class of a StatefulSet's volumes"),
    "kubernetes.forward_offset": (Effect.in_place, "read by the next command"),
    "kubernetes.qdrant_url": (Effect.in_place, "read by the next command"),
    "kubernetes.managed": (Effect.starts_or_stops, "the deployed store stops; its data is not moved"),
}


def effect_of(key: str) -> tuple[Effect, str]:
    """The effect of a change of a key such as `qdrant.tls.cert`, and a remark on it; raises KeyError."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        entry = EFFECTS.get(".".join(parts[:length]))
        if entry is not None:
            return entry
    raise KeyError(key)
