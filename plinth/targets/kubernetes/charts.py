"""The charts, and what of a stack is in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from plinth.services import gateway as gw
from plinth.services import postgres as pg
from plinth.services import qdrant as qd
from plinth.services import redis as rd
from plinth.services.project_files import ProjectFiles
from plinth.settings import Settings
from plinth.targets.images import Images
from plinth.targets.kubernetes import backup_values, gateway, monitoring_values, store_values
from plinth.targets.kubernetes.naming import Layout

Secrets = Mapping[str, Mapping[str, str]]
"""Secrets by name: what is under which key, by the name of a secret, or of a file of a service (`service/file`)."""

Marks = Mapping[str, pulumi.Input[str]]
"""What changes with a secret, by its Secret and key (`secret/key`)."""

MARK = "plinth.dev/secrets"
NOT_HERE = {
    "node-exporter": "a Restricted pod cannot look at its machine; the cluster's own node exporter does",
}


@dataclass(frozen=True)
class Chart:
    """A chart of charts/.

    ``values`` and ``secrets`` are pure; ``components`` are the chart's word for each service in it, by which its pods
    are labelled. ``marked`` gives the values that put marks on the pods, so that they start anew when what they mount
    changes.
    ``behind`` are the charts whose objects come first; ``awaited`` is whether Pulumi may wait for its objects.
    """

    components: Mapping[str, str]
    values: Callable[[Settings, Layout, Images, ProjectFiles], dict[str, Any]]
    secrets: Callable[[Settings], Secrets]
    marked: Callable[[Marks], dict[str, Any]]
    behind: tuple[str, ...] = ()
    awaited: bool = True


def _qdrant_values(settings: Settings, names: Layout, images: Images, project: ProjectFiles) -> dict[str, Any]:
    service = names.services["qdrant"]
    return store_values.qdrant(settings, service, names, images.reference(service.program), project.root)


def _qdrant_secrets(settings: Settings) -> Secrets:
    found: dict[str, Mapping[str, str]] = {}
    if settings.qdrant.auth:
        beside = {"alt-api-key": qd.ALT_API_KEY} if settings.qdrant.alt_api_key else {}
        found[store_values.KEYS] = {"api-key": qd.API_KEY, "read-only-api-key": qd.READ_ONLY_API_KEY, **beside}
    if settings.qdrant.tls:
        parts = {qd.TLS_CERT: "tls.crt", qd.TLS_KEY: "tls.key", qd.TLS_CA: "ca.crt"}
        found[store_values.TLS] = {parts[name]: name for name in qd.tls_files(settings.qdrant.tls)}
    return found


def _on_pods(marks: Marks) -> dict[str, Any]:
    joined = pulumi.Output.all(**marks).apply(lambda each: " ".join(mark for _, mark in sorted(each.items())))
    return {"podAnnotations": {MARK: joined}}


def _by_mount(marks: Marks) -> dict[str, Any]:
    """For a chart of several parts, each of which mounts secrets of its own."""
    return {"secretMarks": dict(marks)}


def _postgres_values(settings: Settings, names: Layout, images: Images, _: ProjectFiles) -> dict[str, Any]:
    service = names.services["postgres"]
    return store_values.postgres(settings, service, images.reference(service.program))


def _redis_values(settings: Settings, names: Layout, images: Images, _: ProjectFiles) -> dict[str, Any]:
    service = names.services["redis"]
    return store_values.redis(settings, service, images.reference(service.program))


def _redis_secrets(settings: Settings) -> Secrets:
    exporter = {store_values.EXPORTER_KEY: rd.EXPORTER_PASSWORD} if rd.is_exported(settings) else {}
    return {store_values.REDIS: {"redis-password": rd.PASSWORD, **exporter}}


CHARTS: dict[str, Chart] = {
    "qdrant": Chart({"qdrant": "node"}, _qdrant_values, _qdrant_secrets, _on_pods),
    "postgres": Chart(
        {"postgres": "server"},
        _postgres_values,
        lambda _: {store_values.POSTGRES: {"postgres-password": pg.SUPERUSER_PASSWORD}},
        _on_pods,
    ),
    "redis": Chart({"redis": "server"}, _redis_values, _redis_secrets, _on_pods),
    "gateway": Chart(
        {gw.NAME: "server", gw.WORKER: "worker"},
        gateway.values,
        gateway.secrets,
        _by_mount,
    ),
    "backup": Chart(
        {},
        lambda settings, names, images, _: backup_values.values(settings, names, images),
        backup_values.secrets,
        _on_pods,
        # A claim gets its volume when the first pod comes, and that is by schedule.
        awaited=False,
    ),
    "monitoring": Chart(
        {
            name: name
            for name in (
                "prometheus",
                "alertmanager",
                "grafana",
                "redis-exporter",
                "postgres-exporter",
                "plinth-exporter",
            )
        },
        monitoring_values.values,
        monitoring_values.secrets,
        _by_mount,
        behind=("backup",),
    ),
}
