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
from plinth.deployment.environment_plan import EnvironmentPlan
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
from plinth.services import Service, gateway, mutual_tls, qdrant, webhooks
from plinth.services import postgres as pg
from plinth.services.backup import CA as BACKUP_CA
from plinth.services.monitoring import GRAFANA_PASSWORD, RULES
from plinth.services.secrets import secrets as wanted_secrets
from plinth.services.web_config import web_config
from plinth.services.web_login import SALT, USER, web_logins
from plinth.settings import Settings, TargetName, Tls
from plinth.settings.repository_address import directory
from plinth.system.yaml_files import read_text, read_yaml
from plinth.targets.base import Node, Placed, Target

Secrets = Mapping[str, pulumi.Output[str]]


def deploy(plan: EnvironmentPlan, deployed: Deployed | None = None) -> None:
    """Declare every resource of an environment and export its outputs; ``deployed`` as in :func:`check`."""
    check(plan, deployed)
    secrets = _secrets(plan) | _tls(plan) | _repository_ca(plan) | _identities(plan)
    ready: dict[str, pulumi.Resource] = {}
    for service in plan.running:
        ready[service.name] = _stand_up(plan, service, secrets, ready)
    if plan.settings.postgres.enabled:
        _databases(plan, secrets, _of(ready, "postgres"))
    if "grafana" in ready:
        url = f"http://{plan.target.reach('grafana', 'http')}"
        Admin(url, secrets[GRAFANA_PASSWORD], pulumi.ResourceOptions(depends_on=_of(ready, "grafana")))
    _collections(plan, secrets, _of(ready, "qdrant"))
    for name, value in outputs(plan, secrets).items():
        pulumi.export(name, value)


def _of(ready: Mapping[str, pulumi.Resource], service: str) -> list[pulumi.Resource]:
    """The gate of a service; none for one that someone else runs."""
    return [ready[service]] if service in ready else []


def check(plan: EnvironmentPlan, deployed: Deployed | None = None) -> Target:
    """Refuse what can be refused before anything is touched; the target that is left has all that it needs.

    ``deployed`` is what ran before, where that was not compared yet.
    """
    settings = plan.settings
    preflight(settings, deployed)
    _refuse_passing(settings, plan.paths)
    if settings.monitoring.prometheus.enabled:
        for name in plan.project.rules:
            read_yaml(plan.root / RULES / name)
    if settings.target is not TargetName.local:
        refuse_known_holes(plan.image_references, load_advisories(plan.root), settings.accepted_advisories)
        if refused := list(webhooks.image_refusals(settings, plan.images.of("alertmanager"))):
            raise UserError(" ".join(refused))
    return plan.target


def _refuse_passing(settings: Settings, home: Home) -> None:
    """Raise where backups would go to what a `down` removes."""
    path = directory(settings.backup.repository or "")
    if path and any(Path(path).resolve().is_relative_to(removed.resolve()) for removed in home.removed):
        raise UserError(
            f"plinth:backup.repository is {path}, which `plinth down {home.env}` removes; name a directory outside of "
            f"{home.base}."
        )


def _secrets(plan: EnvironmentPlan) -> dict[str, pulumi.Output[str]]:
    values = {
        name: pulumi.Output.secret(given.get_secret_value())
        if given
        else GeneratedSecret(name, plan.paths.secrets).value
        for name, given in wanted_secrets(plan.settings).items()
    }
    return values | {
        login.config: pulumi.Output.all(values[login.password], values[SALT]).apply(
            lambda inputs: web_config(USER, *inputs)
        )
        for login in web_logins(plan.settings)
    }


def _tls(plan: EnvironmentPlan) -> dict[str, pulumi.Output[str]]:
    """Certificate, key and signer: of the files that are given, else of an authority of the environment's own."""
    settings = plan.settings
    served = {
        "qdrant": (settings.qdrant.tls, (qdrant.TLS_CERT, qdrant.TLS_KEY, qdrant.TLS_CA)),
        gateway.NAME: (settings.gateway.tls if settings.gateway.enabled else None, gateway.TLS),
    }
    return {
        secret: value
        for name, (tls, secrets) in served.items()
        if tls and name not in plan.target.left_out
        for secret, value in zip(secrets, _certificate(plan, name, tls), strict=True)
        if value is not None
    }


def _certificate(
    plan: EnvironmentPlan, name: str, tls: Tls
) -> tuple[pulumi.Output[str], pulumi.Output[str], pulumi.Output[str] | None]:
    """A service's certificate, its key, and who signed it where the machine's authorities did not."""
    if tls.cert is None or tls.key is None:
        issued = Certificate(name, plan.target.hosts(name), plan.paths.data / "tls")
        return issued.cert, issued.key, issued.ca_cert
    without = "cert and key out for certificates of an own authority"
    read = partial(_pem, plan.root, setting=f"{name}.tls", without=without)
    signer = pulumi.Output.from_input(read(tls.ca_cert)) if tls.ca_cert else None
    return pulumi.Output.from_input(read(tls.cert)), pulumi.Output.secret(read(tls.key)), signer


def _identities(plan: EnvironmentPlan) -> dict[str, pulumi.Output[str]]:
    """Who is who for services that ask for certificates: those of one authority, which Qdrant's is not."""
    issued: dict[str, pulumi.Output[str]] = {}
    for name, role in mutual_tls.identities(plan.running).items():
        hosts = [name] if role == "client" else plan.target.hosts(name)
        made, identity = Certificate(name, hosts, plan.paths.data / "monitoring-tls", role), mutual_tls.Identity(name)
        issued |= {mutual_tls.CA: made.ca_cert, identity.cert: made.cert, identity.key: made.key}
    return issued


def _repository_ca(plan: EnvironmentPlan) -> dict[str, pulumi.Output[str]]:
    """Who signed the certificate of the backups' repository, where that is given."""
    name = plan.settings.backup.ca_cert
    if not (plan.settings.backup.enabled and name):
        return {}
    without = "it out for a server whose certificate an authority of the machine signed"
    return {BACKUP_CA: pulumi.Output.from_input(_pem(plan.root, name, "backup.ca_cert", without))}


def _pem(root: Path, name: str, setting: str, without: str) -> str:
    """A file that a setting names; ``without`` is what to leave out, and for what, where it cannot be read."""
    try:
        return read_text(root / name)
    except UserError as error:
        raise UserError(
            f"plinth:{setting} names {name}, which cannot be read ({error}) Name a PEM file, or leave {without}."
        ) from error


def _stand_up(
    plan: EnvironmentPlan, service: Service, secrets: Secrets, ready: Mapping[str, pulumi.Resource]
) -> pulumi.Resource:
    """Every node of a service, one after the other: the next is touched once the one before is well again."""
    gate = [ready[name] for name in service.needs if name in ready]
    for node in plan.target.nodes(service):
        gate = [_stand_up_node(plan, service, node, secrets, gate)]
    return gate[0]


def _stand_up_node(
    plan: EnvironmentPlan, service: Service, node: Node, secrets: Secrets, needs: Sequence[pulumi.Resource]
) -> pulumi.Resource:
    target = plan.target
    placed = target.place(service, node, secrets, needs)
    if not placed.answers:
        return placed.resource
    rolled = _rolled(plan, service, node, placed, secrets)
    health = service.health
    host, _, port = target.reach(service.name, health.port, node.number).rpartition(":")
    login = _superuser(plan, service, placed, secrets) if health.kind == "postgres" else []
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
        [qdrant_url(plan, peer.number) for peer in plan.target.nodes(service)],
        node.number,
        instance=placed.instance,
        deadline_s=plan.settings.qdrant.settle_timeout_sec,
        api_key=secrets.get(qdrant.API_KEY),
        ca_cert=secrets.get(qdrant.TLS_CA),
        opts=pulumi.ResourceOptions(parent=placed.resource, depends_on=[answers]),
    )


def _rolled(
    plan: EnvironmentPlan, service: Service, node: Node, placed: Placed, secrets: Secrets
) -> list[pulumi.Resource]:
    """What changes the nodes of a service one by one, where the target's own resources do not; before the first."""
    if placed.rolled is None or node.number:
        return []
    return [
        Rollout(
            placed.rolled,
            [qdrant_url(plan, peer.number) for peer in plan.target.nodes(service)],
            instance=placed.instance,
            deadline_s=plan.settings.qdrant.settle_timeout_sec,
            api_key=secrets.get(qdrant.API_KEY),
            ca_cert=secrets.get(qdrant.TLS_CA),
            opts=pulumi.ResourceOptions(parent=placed.resource),
        )
    ]


def _superuser(plan: EnvironmentPlan, service: Service, placed: Placed, secrets: Secrets) -> list[pulumi.Resource]:
    under = pulumi.ResourceOptions(parent=placed.resource)
    server, deadline_s = _server(plan, secrets), service.health.deadline_s
    return [Superuser(server, instance=placed.instance, deadline_s=deadline_s, opts=under)]


def _server(plan: EnvironmentPlan, secrets: Secrets) -> pulumi.Output[Server]:
    host, _, port = plan.target.reach("postgres", "sql").rpartition(":")
    user = pg.superuser(plan.settings)
    return secrets[pg.SUPERUSER_PASSWORD].apply(lambda password: Server(host, int(port), user, password))


def _databases(plan: EnvironmentPlan, secrets: Secrets, ready: Sequence[pulumi.Resource]) -> None:
    server = _server(plan, secrets)
    after = pulumi.ResourceOptions(depends_on=list(ready))
    if not plan.settings.managed.postgres_url:
        MonitorRole(server, pg.MONITOR_ROLE, secrets[pg.MONITOR_PASSWORD], after)
    for database in plan.settings.databases:
        Database(server, database.name, database.role, secrets[pg.database_secret(database.role)], after)


def _collections(plan: EnvironmentPlan, secrets: Secrets, ready: Sequence[pulumi.Resource]) -> None:
    url, ca_cert = service_url(plan), qdrant_ca(plan.settings, secrets)
    server, key = plan.target.serving("qdrant"), secrets.get(qdrant.API_KEY)
    made = [
        Collection(
            spec,
            url=url,
            server=server,
            api_key=key,
            ca_cert=ca_cert,
            deletion_policy=plan.settings.collections.deletion_policy,
            opts=pulumi.ResourceOptions(depends_on=list(ready)),
        )
        for spec in plan.collections
    ]
    # Where there is no collection there is still a server to wait for.
    after = pulumi.ResourceOptions(depends_on=[*ready, *made])
    Aliases(plan.collections, url=url, server=server, api_key=key, ca_cert=ca_cert, opts=after)
