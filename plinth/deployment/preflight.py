"""Refusals before anything is touched: settings that contradict themselves, or what already runs.

Pure: :func:`refusals` takes the wanted settings and what ran before.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from plinth.deployment.deployed_versions import Deployed
from plinth.errors import UserError
from plinth.services import webhooks
from plinth.settings import Settings, TargetName
from plinth.settings.backup import Backup
from plinth.settings.base import ENCRYPTED
from plinth.settings.gateway import SIGNING_KEY_MIN
from plinth.settings.repository_address import directory, holds_secret
from plinth.settings.targets import NODE_PORT_STEP
from plinth.system.versions import numbers

HIGHEST_PORT = 65535
TLS = re.compile(r"s3:(?!http:)|rest:https:")


def preflight(settings: Settings, deployed: Deployed | None = None) -> None:
    """Raise one :class:`UserError` that lists every refusal."""
    found = list(refusals(settings, deployed or {}))
    if found:
        raise UserError(" ".join(found))


def refusals(settings: Settings, deployed: Deployed) -> Iterator[str]:
    """Every reason not to deploy, a sentence each with the next step."""
    if settings.neo4j.enabled and settings.target is TargetName.kubernetes:
        yield "plinth:neo4j.enabled is true, and the kubernetes target deploys no Neo4j; set it to false."
    if settings.monitoring.loki.enabled and settings.target is TargetName.kubernetes:
        yield (
            "plinth:monitoring.loki.enabled is true: on kubernetes the cluster's own collector takes the logs of pods; "
            "set it to false."
        )
    if settings.gateway.enabled:
        yield from _gateway(settings)
    yield from _cluster(settings)
    yield from _exposure(settings)
    yield from _managed(settings)
    yield from _images({**settings.docker.images, **settings.kubernetes.images})
    yield from _ports(settings)
    yield from _databases(settings)
    yield from _repository(settings.backup)
    yield from _schedules(settings)
    yield from webhooks.setting_refusals(settings)
    yield from _upgrade(settings, deployed)


def ports(settings: Settings) -> dict[str, int]:
    """Every port that the enabled services publish, by the settings key that sets it."""
    monitoring, exporters = settings.monitoring, settings.monitoring.exporters
    wanted = {
        "qdrant.http_port": (True, settings.qdrant.http_port),
        "qdrant.grpc_port": (True, settings.qdrant.grpc_port),
        "gateway.http_port": (settings.gateway.enabled, settings.gateway.http_port),
        "gateway.grpc_port": (settings.gateway.enabled, settings.gateway.grpc_port),
        "gateway.worker_port": (settings.gateway.enabled, settings.gateway.worker_port),
        "postgres.port": (settings.postgres.enabled, settings.postgres.port),
        "redis.port": (settings.redis.enabled, settings.redis.port),
        "neo4j.http_port": (settings.neo4j.enabled, settings.neo4j.http_port),
        "neo4j.bolt_port": (settings.neo4j.enabled, settings.neo4j.bolt_port),
        "monitoring.prometheus.port": (monitoring.prometheus.enabled, monitoring.prometheus.port),
        "monitoring.alertmanager.port": (monitoring.alertmanager.enabled, monitoring.alertmanager.port),
        "monitoring.grafana.port": (monitoring.grafana.enabled, monitoring.grafana.port),
        "monitoring.loki.port": (monitoring.loki.enabled, monitoring.loki.port),
        "monitoring.loki.agent_port": (monitoring.loki.enabled, monitoring.loki.agent_port),
        "monitoring.loki.intake_port": (
            monitoring.loki.enabled and settings.target is TargetName.docker,
            monitoring.loki.intake_port,
        ),
        "monitoring.exporters.node_port": (exporters.enabled, exporters.node_port),
        "monitoring.exporters.redis_port": (exporters.enabled and settings.redis.enabled, exporters.redis_port),
        "monitoring.exporters.postgres_port": (
            exporters.enabled and settings.postgres.enabled,
            exporters.postgres_port,
        ),
        "monitoring.exporters.plinth_port": (exporters.enabled, exporters.plinth_port),
        "backup.port": (settings.backup.enabled and settings.target is not TargetName.kubernetes, settings.backup.port),
    }
    nodes = {
        f"qdrant.{key} + {node * NODE_PORT_STEP}": port + node * NODE_PORT_STEP
        for node in range(1, settings.qdrant.nodes if settings.target is TargetName.docker else 1)
        for key, port in (("http_port", settings.qdrant.http_port), ("grpc_port", settings.qdrant.grpc_port))
    }
    return {key: port for key, (enabled, port) in wanted.items() if enabled} | nodes


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _cluster(settings: Settings) -> Iterator[str]:
    qdrant = settings.qdrant
    if qdrant.nodes == 2:
        yield ("plinth:qdrant.nodes is 2: two peers have no majority once one fails; set 1, or 3 and more.")
    if qdrant.nodes > 1 and settings.target is TargetName.local:
        yield (
            f"plinth:qdrant.nodes is {qdrant.nodes}: the local target runs one node; set 1, or plinth:target to docker."
        )
    if qdrant.nodes > 1 and qdrant.tls and qdrant.tls.cert and not qdrant.tls.ca_cert:
        yield (
            "plinth:qdrant.tls.ca_cert is missing: peers check each other's certificates with it; "
            "name the file of who signed them, or leave cert and key out for an own authority."
        )
    if qdrant.replication_factor > qdrant.nodes:
        yield (
            f"plinth:qdrant.replication_factor is {qdrant.replication_factor} on {qdrant.nodes} node(s): "
            f"a shard has at most one replica a node; set {qdrant.nodes} or less."
        )
    if qdrant.nodes > 1 and qdrant.replication_factor == 1 and not qdrant.allow_single_replica:
        yield (
            f"plinth:qdrant.replication_factor is 1 on {qdrant.nodes} nodes: a lost node loses its shards; "
            "set 2, or plinth:qdrant.allow_single_replica to true if the data can be made again."
        )


def _exposure(settings: Settings) -> Iterator[str]:
    if settings.target is TargetName.local and not is_loopback(settings.bind_address):
        yield (
            f"plinth:bind_address is {settings.bind_address}: the local target listens on loopback only; "
            "set 127.0.0.1, or plinth:target to docker."
        )
    if settings.target is TargetName.docker:
        yield from _published(settings)
    yield from _tokens(settings)
    if not settings.qdrant.auth and settings.target is TargetName.kubernetes:
        yield "plinth:qdrant.auth is off: every pod that may reach the port would own the data; turn auth on."
    elif not settings.qdrant.auth and "qdrant" in settings.published and not is_loopback(settings.bind_address):
        yield (
            f"plinth:qdrant.auth is off while it is published on {settings.bind_address}: anyone who reaches the "
            "port owns the data; turn auth on, or bind 127.0.0.1."
        )


def _tokens(settings: Settings) -> Iterator[str]:
    """Qdrant checks tokens with its keys, so there is one, and each is as long as HS256 asks for."""
    if not settings.qdrant.jwt_rbac:
        return
    if not settings.qdrant.auth:
        yield "plinth:qdrant.jwt_rbac is on and plinth:qdrant.auth is off: no key signs tokens; turn auth on."
    for name in ("api_key", "alt_api_key"):
        key = getattr(settings.qdrant, name)
        text = key.get_secret_value() if key else ENCRYPTED
        if text != ENCRYPTED and len(text) < SIGNING_KEY_MIN:
            yield (
                f"plinth:qdrant.{name} has {len(text)} characters and jwt_rbac has it sign tokens: who sees one may "
                f"guess it; take {SIGNING_KEY_MIN} or more, or leave it out."
            )


def _published(settings: Settings) -> Iterator[str]:
    """What listens beyond loopback is named, and is there."""
    address, names = settings.bind_address, settings.docker.publish
    if not is_loopback(address) and not names:
        yield (
            f"plinth:bind_address is {address} and plinth:docker.publish names nothing that would listen there; name "
            "the stores that applications of other machines use, such as [qdrant], or set 127.0.0.1."
        )
    if is_loopback(address) and names:
        yield (
            f"plinth:docker.publish names {', '.join(names)}, and plinth:bind_address is {address}, which other "
            "machines do not reach; set the address of an interface, or leave docker.publish out."
        )
    running = {key.split(".")[-2] for key in ports(settings)}
    for name in names:
        if name not in running:
            yield f"plinth:docker.publish names {name}, which is off; leave it out, or turn {name} on."


def _managed(settings: Settings) -> Iterator[str]:
    """What someone else runs has passwords that cannot be generated here."""
    managed = settings.managed
    scraped = managed.qdrant_url if settings.monitoring.prometheus.enabled else None
    for url, key, given in (
        (managed.qdrant_url, "qdrant.api_key", settings.qdrant.api_key),
        (scraped, "qdrant.read_only_api_key", settings.qdrant.read_only_api_key),
        (managed.postgres_url, "postgres.superuser_password", settings.postgres.superuser_password),
        (managed.redis_url, "redis.password", settings.redis.password),
    ):
        if url and given is None:
            yield (f"{url} is run by someone else and plinth:{key} is not set; set it with `plinth secret ENV {key}`.")
    if managed.qdrant_url and settings.qdrant.tls:
        yield "plinth:qdrant.tls is for a Qdrant that is deployed, and plinth:kubernetes.managed names one; unset one."
    if settings.target is TargetName.kubernetes and settings.kubernetes.qdrant_url and settings.qdrant.tls:
        yield (
            "plinth:kubernetes.qdrant_url and plinth:qdrant.tls are both set: what publishes Qdrant has a certificate "
            "of its own; end TLS there and unset qdrant.tls, or leave qdrant_url out."
        )
    repository = settings.backup.repository
    elsewhere = settings.target is not TargetName.local and settings.backup.enabled
    if elsewhere and repository and directory(repository) is not None:
        # On docker it would lie in the container's own layer, and go with it.
        place, volume = (
            ("pod", "a claim in the namespace")
            if settings.target is TargetName.kubernetes
            else ("container", "a volume of the stack")
        )
        yield (
            f"plinth:backup.repository is {repository}, a directory, and no {place} has it; name a repository that "
            f"{place}s reach, such as s3:https://host/bucket/prefix, or leave it out for {volume}."
        )
    parts = (settings.monitoring.grafana, settings.monitoring.exporters, settings.monitoring.alertmanager)
    prometheus = settings.monitoring.prometheus.enabled
    alone = prometheus and not settings.monitoring.alertmanager.enabled
    if settings.target is TargetName.kubernetes and (alone or (not prometheus and any(p.enabled for p in parts))):
        yield (
            "plinth:monitoring: on kubernetes Prometheus and Alertmanager come together, and the rest with them; "
            "turn both on, or all of it off."
        )
    highest = max(ports(settings).values(), default=0) + NODE_PORT_STEP * (settings.qdrant.nodes - 1)
    if settings.target is TargetName.kubernetes and highest + settings.kubernetes.forward_offset > HIGHEST_PORT:
        yield (
            f"plinth:kubernetes.forward_offset is {settings.kubernetes.forward_offset}, which leads to ports above "
            f"{HIGHEST_PORT}; set {HIGHEST_PORT - highest} or less."
        )


def _gateway(settings: Settings) -> Iterator[str]:
    for store, enabled in (("postgres", settings.postgres.enabled), ("redis", settings.redis.enabled)):
        if not enabled:
            yield (
                f"plinth:gateway.enabled is true, and the gateway needs {store.title()}; set plinth:{store}.enabled to "
                "true."
            )
    wanted = settings.gateway
    if settings.target is not TargetName.kubernetes:
        for key, number in (
            ("replicas", wanted.replicas),
            ("replicas_max", wanted.replicas_max),
            ("worker_replicas", wanted.worker_replicas),
        ):
            if number not in (None, 1):
                yield (
                    f"plinth:gateway.{key} is {number}, and the {settings.target} target runs one of each; leave it "
                    "out, or set plinth:target to kubernetes."
                )
    elif wanted.processes not in (None, 1):
        yield (
            f"plinth:gateway.processes is {wanted.processes}, and a pod has one; set plinth:gateway.replicas in its "
            "place."
        )
    elif wanted.replicas_max is not None and wanted.replicas_max < wanted.replicas:
        yield (
            f"plinth:gateway.replicas_max is {wanted.replicas_max}, less than plinth:gateway.replicas, "
            f"{wanted.replicas}; set as many or more, or leave it out."
        )


def _images(images: Mapping[str, str]) -> Iterator[str]:
    for key, reference in sorted(images.items()):
        tag = reference.rsplit("/", 1)[-1].partition(":")[2]
        if "@sha256:" not in reference and tag in ("", "latest"):
            yield f"The image of '{key}' is {reference}, a tag that moves; name a version or a digest."


def _ports(settings: Settings) -> Iterator[str]:
    wanted = ports(settings)
    for port, times in sorted(Counter(wanted.values()).items()):
        if times > 1:
            keys = " and ".join(f"plinth:{key}" for key, value in wanted.items() if value == port)
            yield f"{keys} are both {port}; give each a port of its own."


def _databases(settings: Settings) -> Iterator[str]:
    for what, names in (
        ("database", [database.name for database in settings.databases]),
        ("owner", [database.role for database in settings.databases]),
    ):
        for name, times in Counter(names).items():
            if times > 1:
                yield f"plinth:postgres.databases names the {what} '{name}' twice; each has one of its own."
            if name in ("postgres", "template0", "template1") or name.startswith("pg_"):
                yield f"plinth:postgres.databases: '{name}' is Postgres' own name; choose another for the {what}."


def _repository(backup: Backup) -> Iterator[str]:
    where = backup.repository or ""
    if backup.s3 and not where.startswith("s3:"):
        yield (
            "plinth:backup.s3 holds keys, and plinth:backup.repository is none in S3; set it to "
            "s3:https://host/bucket/prefix, or remove the keys."
        )
    if backup.ca_cert and not TLS.match(where):
        yield (
            "plinth:backup.ca_cert is who signed the certificate of a repository's server, and "
            "plinth:backup.repository names none with TLS; set it to s3:https://host/bucket/prefix, or remove ca_cert."
        )
    if holds_secret(where):
        yield (
            "plinth:backup.repository has a secret in its address, which is kept in the clear; leave it out, and set "
            "the login of a rest-server with `plinth secret ENV backup.rest.password`, the keys of S3 with `plinth "
            "secret ENV backup.s3.secret_access_key`."
        )
    if backup.rest and not where.startswith("rest:"):
        yield (
            "plinth:backup.rest is the login of a rest-server, and plinth:backup.repository names none; set it to "
            "rest:https://host:8000/name, or remove the login."
        )
    if backup.rest and where.startswith("rest:http:") and not is_loopback(urlsplit(where[5:]).hostname or ""):
        yield (
            "plinth:backup.repository is reached without TLS, and plinth:backup.rest would send its password in the "
            "clear; set it to rest:https://host:8000/name."
        )
    if backup.append_only and directory(where) is not None:
        yield (
            "plinth:backup.append_only is on, and the repository is in a directory, which its owner can always delete; "
            "name one on a rest-server or in S3, or turn it off."
        )


def _schedules(settings: Settings) -> Iterator[str]:
    """A CronJob knows less of cron than Plinth's own schedule."""
    if settings.target is not TargetName.kubernetes or not settings.backup.enabled:
        return
    for key in ("schedule", "check_schedule", "drill_schedule"):
        expression: str = getattr(settings.backup, key)
        _, _, day, _, weekday = expression.upper().split()
        if "L" in day or re.search(r"#|\dL|(?<![/\d])7", weekday):
            yield (
                f"plinth:backup.{key} is {expression}, and a CronJob of kubernetes knows no L, no # and no day 7; "
                "write 0 for Sunday, and days by their number."
            )


def _upgrade(settings: Settings, deployed: Deployed) -> Iterator[str]:
    oldest = deployed.get("qdrant_version")
    if not oldest:
        return
    newest = deployed.get("qdrant_newest", oldest)
    was, wanted = numbers(oldest)[:2], numbers(settings.qdrant.version)[:2]
    if wanted < was:
        yield (
            f"plinth:qdrant.version is {settings.qdrant.version} and {oldest} runs: Qdrant cannot go back; "
            "restore a backup of the older version into a new environment instead."
        )
    elif wanted < numbers(newest)[:2]:
        yield (
            f"plinth:qdrant.version is {settings.qdrant.version}, and a run to {newest} did not end well: once that "
            f"has opened the data, Qdrant cannot go back. Set {newest} again; or, where its log shows that it never "
            "started, run `plinth down` first, which keeps the data and forgets that run."
        )
    elif wanted[0] != was[0] or wanted[1] - was[1] > 1:
        yield (
            f"plinth:qdrant.version skips from {oldest} to {settings.qdrant.version}: Qdrant upgrades one minor at a "
            f"time; set the last patch of {was[0]}.{was[1] + 1} first."
        )
