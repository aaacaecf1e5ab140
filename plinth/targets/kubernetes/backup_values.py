"""The values of charts/backup: what is taken, where it goes, and when."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from plinth.kubernetes.volume_expansion_plan import GIB
from plinth.services import backup as bk
from plinth.services import monitoring as mon
from plinth.services import postgres as pg
from plinth.services import qdrant as qd
from plinth.services.exporters import PLINTH
from plinth.settings import Settings
from plinth.targets.images import Images
from plinth.targets.kubernetes.monitoring_values import COPY_PASSWORD, copy_url, lends_grafana
from plinth.targets.kubernetes.naming import BACKUP, Layout, pod_labels
from plinth.targets.kubernetes.store_values import KEYS, POSTGRES, REDIS, TLS, image, resources, volume

SECRET = "backup-keys"  # noqa: S105 - the Secret's name
PASSWORD = "restic-password"  # noqa: S105 - its key
CA = "ca.crt"


def values(settings: Settings, names: Layout, images: Images) -> dict[str, Any]:
    """What an environment decides of its backups."""
    wanted, service = settings.backup, names.services[bk.NAME]
    own = wanted.repository is None
    words = bk.repository_words(wanted)
    when = bk.schedule(wanted)
    return {
        "fullnameOverride": BACKUP,
        "image": image(images.reference(service.program)),
        "name": wanted.name,
        "repository": {
            "location": wanted.repository or names.volume(bk.NAME, "repository"),
            "existingSecret": SECRET,
            "passwordKey": PASSWORD,
            "caKey": CA if wanted.ca_cert else "",
            "environment": words["repository_environment"],
            "secretEnvironment": {name: _key(name) for name in bk.repository_logins(wanted)},
            "options": words["repository_options"],
            "limitUploadKib": wanted.upload_kib or 0,
        },
        "appendOnly": wanted.append_only,
        "keep": wanted.keep.model_dump(),
        **_stores(settings, names),
        "notTaken": bk.not_taken(settings),
        "schedules": {"run": when["backup"], "check": when["check"], "drill": when["drill"]},
        "checkParts": when["check_parts"],
        "persistence": {
            "work": volume(settings, service.volumes["work"]),
            "state": {"storageClass": settings.kubernetes.storage_class or ""},
            **({"repository": volume(settings, service.volumes["repository"])} if own else {}),
        },
        "networkPolicy": {"egress": {"repositoryPorts": list(repository_ports(wanted.repository))}},
        "resources": resources(service.limits),
        "affinity": _affinity(names),
    }


def repository_ports(location: str | None) -> Iterator[int]:
    """The TCP port of a repository's server; none for one in a directory or a claim."""
    if location is None or ":" not in location:
        return
    kind, _, address = location.partition(":")
    parts = urlsplit(address if "://" in address else f"//{address.removeprefix('//')}")
    # Of `user@host:path`, which sftp takes too, what follows the host is no port.
    port = re.search(r":(\d+)$", parts.netloc)
    yield int(port[1]) if port else 22 if kind == "sftp" else 80 if parts.scheme == "http" else 443


def secrets(settings: Settings) -> dict[str, Mapping[str, str]]:
    """Its Secret: which of the environment's secrets is under which key."""
    logins = {_key(name): secret for name, secret in bk.repository_logins(settings.backup).items()}
    copy = {COPY_PASSWORD: mon.GRAFANA_COPY_PASSWORD} if settings.monitoring.grafana.enabled else {}
    ca = {CA: bk.CA} if settings.backup.ca_cert else {}
    return {SECRET: {PASSWORD: bk.PASSWORD, **logins, **copy, **ca}}


def claims(settings: Settings, names: Layout) -> dict[str, int]:
    """The claims that its jobs share, bytes by name, as far as their size is set."""
    volumes = dict(names.services[bk.NAME].volumes) if bk.NAME in names.services else {}
    if settings.backup.repository is not None:
        volumes.pop("repository", None)
    return {f"{BACKUP}-{name}": gib * GIB for name, gib in volumes.items()}


def _stores(settings: Settings, names: Layout) -> dict[str, Any]:
    """The stores that are deployed; one that someone else runs is theirs to back up."""
    found: dict[str, Any] = {}
    if "qdrant" in names.services:
        scheme = "https" if settings.qdrant.tls else "http"
        found["qdrant"] = {
            "urls": [f"{scheme}://{address}" for address in names.addresses("qdrant", "http")],
            "existingSecret": KEYS if settings.qdrant.auth else "",
            "caSecret": TLS if qd.tls_ca(settings.qdrant.tls) else "",
        }
    if "postgres" in names.services:
        login = {"user": pg.SUPERUSER, "existingSecret": POSTGRES}
        found["postgres"] = {**_at(names, "postgres", "sql"), **login, "extensions": list(settings.backup.extensions)}
    if "redis" in names.services:
        found["redis"] = {**_at(names, "redis", "resp"), "existingSecret": REDIS}
    if lends_grafana(names.services):
        about = {"url": copy_url(names), "existingSecret": SECRET, "passwordKey": COPY_PASSWORD}
        found["grafana"] = {"enabled": True, **about}
    return found


def _at(names: Layout, service: str, port: str) -> dict[str, Any]:
    host, _, number = names.address(service, port).rpartition(":")
    return {"enabled": True, "host": host, "port": int(number)}


def _affinity(names: Layout) -> dict[str, Any]:
    """Where the exporter is, which has the claim of the results: most storage is on one machine at a time."""
    if PLINTH not in names.services:
        return {}
    beside = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": pod_labels("monitoring", PLINTH)},
    }
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [beside]}}


def _key(name: str) -> str:
    """The key of a Secret for a variable of an environment."""
    return name.lower().replace("_", "-")
