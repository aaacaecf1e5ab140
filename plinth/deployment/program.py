"""The composition: the only place that knows the order.

services -> target -> ready -> databases -> collections -> outputs. Each step depends on the one before, so that Pulumi
does what can be done at once and nothing sooner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pulumi

from plinth.admin.postgres import Server
from plinth.deployment.advisories import load_advisories, refuse_known_holes
from plinth.deployment.deployed_versions import Deployed
from plinth.deployment.outputs import outputs, qdrant_ca, qdrant_url, service_url
from plinth.deployment.preflight import preflight
from plinth.errors import UserError
from plinth.health.probes import Probe
from plinth.paths import Home
from plinth.resources.certificate import Certificate
from plinth.resources.cluster_ready import ClusterReady
from plinth.resources.collection import Aliases, Collection
from plinth.resources.database import Database, MonitorRole, Superuser
from plinth.resources.grafana import Admin
from plinth.resources.ready import Ready
from plinth.resources.rollout import Rollout
from plinth.resources.secret import GeneratedSecret
from plinth.services import Service, gateway, mutual_tls, qdrant, services
from plinth.services import postgres as pg
from plinth.services.backup import CA as BACKUP_CA
from plinth.services.collection_files import collection_specs
from plinth.services.monitoring import GRAFANA_PASSWORD, RULES
from plinth.services.secrets import secrets as wanted_secrets
from plinth.services.web_config import web_config
from plinth.services.web_login import SALT, USER, web_logins
from plinth.settings import Settings, TargetName, Tls
from plinth.settings.repository_address import directory
from plinth.system.yaml_files import read_text, read_yaml
from plinth.targets.base import Node, Placed, Target
from plinth.targets.factory import image_references, target_of

Secrets = Mapping[str, pulumi.Output[str]]


def deploy(settings: Settings, root: Path, home: Home, deployed: Deployed | None = None) -> None:
    """Declare every resource of an environment and export its outputs; ``deployed`` as in :func:`check`."""
    target = check(settings, root, home, deployed)
    running = services(settings, root, target.left_out)
    secrets = _secrets(settings, home) | _tls(settings, root, home, target) | _repository_ca(settings, root)
    secrets |= _identities(running, home, target)
    ready: dict[str, pulumi.Resource] = {}
    for service in running:
        ready[service.name] = _stand_up(settings, service, target, secrets, ready)
    if settings.postgres.enabled:
        _databases(settings, target, secrets, _of(ready, "postgres"))
    if "grafana" in ready:
        url = f"http://{target.reach('grafana', 'http')}"
        Admin(url, secrets[GRAFANA_PASSWORD], pulumi.ResourceOptions(depends_on=_of(ready, "grafana")))
    _collections(settings, root, target, secrets, _of(ready, "qdrant"))
    for name, value in outputs(settings, running, target, secrets).items():
        pulumi.export(name, value)


def _of(ready: Mapping[str, pulumi.Resource], service: str) -> list[pulumi.Resource]:
    """The gate of a service; none for one that someone else runs."""
    return [ready[service]] if service in ready else []


def check(settings: Settings, root: Path, home: Home, deployed: Deployed | None = None) -> Target:
    """Refuse what can be refused before anything is touched; the target that is left has all that it needs.

    ``deployed`` is what ran before, where that was not compared yet.
    """
    preflight(settings, deployed)
    _refuse_passing(settings, home)
    if settings.monitoring.prometheus.enabled:
        for rules in (root / RULES).glob("*.y*ml"):
            read_yaml(rules)
    if settings.target is not TargetName.local:
        references = image_references(settings, root)
        refuse_known_holes(references, load_advisories(root), settings.accepted_advisories)
    collection_specs(settings, root)
    return target_of(settings, root, home, services(settings, root))


def _refuse_passing(settings: Settings, home: Home) -> None:
    """Raise where backups would go to what a `down` removes."""
    path = directory(settings.backup.repository or "")
    if path and any(Path(path).resolve().is_relative_to(removed.resolve()) for removed in home.removed):
        raise UserError(
            f"plinth:backup.repository is {path}, which `plinth down {home.env}` removes; name a directory outside of "
            f"{home.base}."
        )


def _secrets(settings: Settings, home: Home) -> dict[str, pulumi.Output[str]]:
    values = {
        name: pulumi.Output.secret(given.get_secret_value()) if given else GeneratedSecret(name, home.secrets).value
        for name, given in wanted_secrets(settings).items()
    }
    return values | {
        login.config: pulumi.Output.all(values[login.password], values[SALT]).apply(
            lambda inputs: web_config(USER, *inputs)
        )
        for login in web_logins(settings)
    }


def _tls(settings: Settings, root: Path, home: Home, target: Target) -> dict[str, pulumi.Output[str]]:
    """Certificate, key and signer: of the files that are given, else of an authority of the environment's own."""
    served = {
        "qdrant": (settings.qdrant.tls, (qdrant.TLS_CERT, qdrant.TLS_KEY, qdrant.TLS_CA)),
        gateway.NAME: (settings.gateway.tls if settings.gateway.enabled else None, gateway.TLS),
    }
    return {
        secret: value
        for name, (tls, secrets) in served.items()
        if tls and name not in target.left_out
        for secret, value in zip(secrets, _certificate(name, tls, root, home, target), strict=True)
        if value is not None
    }


def _certificate(
    name: str, tls: Tls, root: Path, home: Home, target: Target
) -> tuple[pulumi.Output[str], pulumi.Output[str], pulumi.Output[str] | None]:
    """A service's certificate, its key, and who signed it where the machine's authorities did not."""
    if tls.cert is None or tls.key is None:
        issued = Certificate(name, target.hosts(name), home.data / "tls")
        return issued.cert, issued.key, issued.ca_cert
    without = "cert and key out for certificates of an own authority"
    read = partial(_pem, root, setting=f"{name}.tls", without=without)
    signer = pulumi.Output.from_input(read(tls.ca_cert)) if tls.ca_cert else None
    return pulumi.Output.from_input(read(tls.cert)), pulumi.Output.secret(read(tls.key)), signer


def _identities(running: Sequence[Service], home: Home, target: Target) -> dict[str, pulumi.Output[str]]:
    """Who is who for services that ask for certificates: those of one authority, which Qdrant's is not."""
    issued: dict[str, pulumi.Output[str]] = {}
    for name, role in mutual_tls.identities(running).items():
        hosts = [name] if role == "client" else target.hosts(name)
        made, identity = Certificate(name, hosts, home.data / "monitoring-tls", role), mutual_tls.Identity(name)
        issued |= {mutual_tls.CA: made.ca_cert, identity.cert: made.cert, identity.key: made.key}
    return issued


def _repository_ca(settings: Settings, root: Path) -> dict[str, pulumi.Output[str]]:
    """Who signed the certificate of the backups' repository, where that is given."""
    name = settings.backup.ca_cert
    if not (settings.backup.enabled and name):
        return {}
    without = "it out for a server whose certificate an authority of the machine signed"
    return {BACKUP_CA: pulumi.Output.from_input(_pem(root, name, "backup.ca_cert", without))}


def _pem(root: Path, name: str, setting: str, without: str) -> str:
    """A file that a setting names; ``without`` is what to leave out, and for what, where it cannot be read."""
    try:
        return read_text(root / name)
    except UserError as error:
        raise UserError(
            f"plinth:{setting} names {name}, which cannot be read ({error}) Name a PEM file, or leave {without}."
        ) from error


def _stand_up(
    settings: Settings, service: Service, target: Target, secrets: Secrets, ready: Mapping[str, pulumi.Resource]
) -> pulumi.Resource:
    """Every node of a service, one after the other: the next is touched once the one before is well again."""
    gate = [ready[name] for name in service.needs if name in ready]
    for node in target.nodes(service):
        gate = [_stand_up_node(settings, service, node, target, secrets, gate)]
    return gate[0]


def _stand_up_node(
    settings: Settings, service: Service, node: Node, target: Target, secrets: Secrets, needs: Sequence[pulumi.Resource]
) -> pulumi.Resource:
    placed = target.place(service, node, secrets, needs)
    if not placed.answers:
        return placed.resource
    rolled = _rolled(settings, service, node, placed, target, secrets)
    health = service.health
    host, _, port = target.reach(service.name, health.port, node.number).rpartition(":")
    login = _superuser(settings, target, service, placed, secrets) if health.kind == "postgres" else []
    answers = Ready(
        node.name,
        Probe(health.kind, host, int(port), health.path, health.user, tls=health.tls),
        instance=placed.instance,
        deadline_s=health.deadline_s,
        password=secrets[health.secret] if health.secret else None,
        ca_cert=secrets[health.ca] if health.ca else None,
        client_cert=secrets[mutual_tls.PLINTH.cert] if health.mutual else None,
        client_key=secrets[mutual_tls.PLINTH.key] if health.mutual else None,
        opts=pulumi.ResourceOptions(parent=placed.resource, depends_on=[*needs, *rolled, *login]),
    )
    if service.peers is None or service.peers.count == 1:
        return answers
    return ClusterReady(
        node.name,
        [qdrant_url(settings, target, peer.number) for peer in target.nodes(service)],
        node.number,
        instance=placed.instance,
        deadline_s=settings.qdrant.settle_timeout_sec,
        api_key=secrets.get(qdrant.API_KEY),
        ca_cert=secrets.get(qdrant.TLS_CA),
        opts=pulumi.ResourceOptions(parent=placed.resource, depends_on=[answers]),
    )


def _rolled(
    settings: Settings, service: Service, node: Node, placed: Placed, target: Target, secrets: Secrets
) -> list[pulumi.Resource]:
    """What changes the nodes of a service one by one, where the target's own resources do not; before the first."""
    if placed.rolled is None or node.number:
        return []
    return [
        Rollout(
            placed.rolled,
            [qdrant_url(settings, target, peer.number) for peer in target.nodes(service)],
            instance=placed.instance,
            deadline_s=settings.qdrant.settle_timeout_sec,
            api_key=secrets.get(qdrant.API_KEY),
            ca_cert=secrets.get(qdrant.TLS_CA),
            opts=pulumi.ResourceOptions(parent=placed.resource),
        )
    ]


def _superuser(
    settings: Settings, target: Target, service: Service, placed: Placed, secrets: Secrets
) -> list[pulumi.Resource]:
    under = pulumi.ResourceOptions(parent=placed.resource)
    server, deadline_s = _server(settings, target, secrets), service.health.deadline_s
    return [Superuser(server, instance=placed.instance, deadline_s=deadline_s, opts=under)]


def _server(settings: Settings, target: Target, secrets: Secrets) -> pulumi.Output[Server]:
    host, _, port = target.reach("postgres", "sql").rpartition(":")
    user = pg.superuser(settings)
    return secrets[pg.SUPERUSER_PASSWORD].apply(lambda password: Server(host, int(port), user, password))


def _databases(settings: Settings, target: Target, secrets: Secrets, ready: Sequence[pulumi.Resource]) -> None:
    server = _server(settings, target, secrets)
    after = pulumi.ResourceOptions(depends_on=list(ready))
    if not settings.managed.postgres_url:
        MonitorRole(server, pg.MONITOR_ROLE, secrets[pg.MONITOR_PASSWORD], after)
    for database in settings.databases:
        Database(server, database.name, database.role, secrets[pg.database_secret(database.role)], after)


def _collections(
    settings: Settings, root: Path, target: Target, secrets: Secrets, ready: Sequence[pulumi.Resource]
) -> None:
    specs = collection_specs(settings, root)
    url, ca_cert = service_url(settings, target), qdrant_ca(settings, secrets)
    server, key = target.serving("qdrant"), secrets.get(qdrant.API_KEY)
    made = [
        Collection(
            spec,
            url=url,
            server=server,
            api_key=key,
            ca_cert=ca_cert,
            deletion_policy=settings.collections.deletion_policy,
            opts=pulumi.ResourceOptions(depends_on=list(ready)),
        )
        for spec in specs
    ]
    # Where there is no collection there is still a server to wait for.
    after = pulumi.ResourceOptions(depends_on=[*ready, *made])
    Aliases(specs, url=url, server=server, api_key=key, ca_cert=ca_cert, opts=after)
