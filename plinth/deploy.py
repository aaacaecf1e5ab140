"""The composition: the only place that knows the order.

services -> target -> ready -> databases -> collections -> outputs. Each step depends on the one before, so that Pulumi
does what can be done at once and nothing sooner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi

from plinth.errors import UserError
from plinth.home import Home
from plinth.images import Images, images
from plinth.postgres import Server
from plinth.preflight import Deployed, preflight, volumes_gib
from plinth.probes import Probe
from plinth.qdrant.spec import CollectionSpec, load_specs
from plinth.resources.certificate import Certificate
from plinth.resources.collection import Aliases, Collection
from plinth.resources.database import Database, MonitorRole
from plinth.resources.ready import Ready
from plinth.resources.secret import GeneratedSecret
from plinth.resources.settled import Settled
from plinth.services import Service, qdrant, services
from plinth.services import postgres as pg
from plinth.services.secrets import secrets as wanted_secrets
from plinth.settings import Settings, TargetName
from plinth.targets.docker import DockerTarget
from plinth.targets.docker.declared import Options
from plinth.targets.local import LocalTarget
from plinth.targets.placed import Node, Target

Secrets = Mapping[str, pulumi.Output[str]]


def deploy(settings: Settings, root: Path, home: Home) -> None:
    """Declare every resource of an environment and export its outputs."""
    target = check(settings, root, home)
    running = services(settings, root, target.left_out)
    secrets = _secrets(settings, home) | _tls(settings, root, home, target)
    ready: dict[str, pulumi.Resource] = {}
    for service in running:
        ready[service.name] = _stand_up(settings, service, target, secrets, ready)
    if "postgres" in ready:
        _databases(settings, target, secrets, ready["postgres"])
    _collections(settings, root, target, secrets, ready["qdrant"])
    for name, value in outputs(settings, running, target, secrets).items():
        pulumi.export(name, value)


def check(settings: Settings, root: Path, home: Home, deployed: Deployed | None = None) -> Target:
    """Refuse what can be refused before anything is touched; the target that is left has all that it needs."""
    preflight(settings, deployed)
    collection_specs(settings, root)
    return _target(settings, root, home, services(settings, root))


def collection_specs(settings: Settings, root: Path) -> list[CollectionSpec]:
    """The collections of an environment: the files, with what the settings change in them."""
    wanted = settings.collections
    return load_specs(root / wanted.directory, wanted.only, wanted.overrides)


def image_references(settings: Settings, root: Path) -> dict[str, str]:
    """The images of an environment by key, with its mirror and its own choices."""
    return _images(settings, root).references(services(settings, root))


def leaving_hosts(settings: Settings, root: Path, home: Home, was: int) -> list[str]:
    """The host names among their peers of the Qdrant nodes that a deploy would take away; ``was`` is their number."""
    if settings.target is not TargetName.docker or settings.qdrant.nodes >= was:
        return []
    before = settings.model_copy(update={"qdrant": settings.qdrant.model_copy(update={"nodes": was})})
    target = _target(before, root, home, services(before, root))
    peers = [target.peer("qdrant", node, "p2p") for node in range(settings.qdrant.nodes, was)]
    return [address.rpartition(":")[0] for address in peers]


def _images(settings: Settings, root: Path) -> Images:
    if settings.target is TargetName.docker:
        return images(root, settings.docker.registry_mirror, settings.docker.images)
    return images(root, None, settings.kubernetes.images)


def _target(settings: Settings, root: Path, home: Home, wanted: Sequence[Service]) -> Target:
    if settings.target is TargetName.local:
        target = LocalTarget(home, root, settings.bind_address, wanted)
        qdrant.refuse_other_engine(
            settings.qdrant.engine,
            Path(target.volume("qdrant", "storage")),
            embedded_serves=target.is_substituted("qdrant"),
        )
        return target
    if settings.target is TargetName.docker:
        options = Options(settings.bind_address, settings.docker.nofile)
        return DockerTarget(home.env, root, _images(settings, root), wanted, options, settings.docker.host)
    raise UserError(
        f"The {settings.target} target cannot be deployed by this version; its settings are valid. "
        "Use an environment whose plinth:target is local or docker."
    )


def _secrets(settings: Settings, home: Home) -> dict[str, pulumi.Output[str]]:
    return {
        name: pulumi.Output.secret(given.get_secret_value())
        if given
        else GeneratedSecret(name, home.data / "secrets.json").value
        for name, given in wanted_secrets(settings).items()
    }


def _tls(settings: Settings, root: Path, home: Home, target: Target) -> dict[str, pulumi.Output[str]]:
    """Certificate, key and signer: of the files that are given, else of an authority of the environment's own."""
    tls = settings.qdrant.tls
    if tls is None:
        return {}
    if tls.cert is None or tls.key is None:
        issued = Certificate("qdrant", target.hosts("qdrant"), home.data / "tls")
        return {qdrant.TLS_CERT: issued.cert, qdrant.TLS_KEY: issued.key, qdrant.TLS_CA: issued.ca_cert}
    given = {
        qdrant.TLS_CERT: pulumi.Output.from_input(_file(root, tls.cert)),
        qdrant.TLS_KEY: pulumi.Output.secret(_file(root, tls.key)),
    }
    return given | ({qdrant.TLS_CA: pulumi.Output.from_input(_file(root, tls.ca_cert))} if tls.ca_cert else {})


def _file(root: Path, name: str) -> str:
    try:
        return (root / name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"plinth:qdrant.tls names {name}, which cannot be read ({error}); name a PEM file, or leave cert and key "
            "out for certificates of an own authority."
        ) from error


def _url(settings: Settings, target: Target, node: int = 0, port: str = "http") -> str:
    scheme = "https" if settings.qdrant.tls else "http"
    return f"{scheme}://{target.reach('qdrant', port, node)}"


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
    health = service.health
    host, _, port = target.reach(service.name, health.port, node.number).rpartition(":")
    answers = Ready(
        node.name,
        Probe(health.kind, host, int(port), health.path, tls=health.tls),
        instance=placed.instance,
        deadline_s=health.deadline_s,
        password=secrets[health.secret] if health.secret else None,
        ca_cert=secrets.get(qdrant.TLS_CA) if health.tls else None,
        opts=pulumi.ResourceOptions(parent=placed.resource),
    )
    if service.peers is None or service.peers.count == 1:
        return answers
    return Settled(
        node.name,
        [_url(settings, target, peer.number) for peer in target.nodes(service)],
        node.number,
        instance=placed.instance,
        deadline_s=settings.qdrant.settle_timeout_sec,
        api_key=secrets.get(qdrant.API_KEY),
        ca_cert=secrets.get(qdrant.TLS_CA),
        opts=pulumi.ResourceOptions(parent=placed.resource, depends_on=[answers]),
    )


def _databases(settings: Settings, target: Target, secrets: Secrets, ready: pulumi.Resource) -> None:
    host, _, port = target.reach("postgres", "sql").rpartition(":")
    server = secrets[pg.SUPERUSER_PASSWORD].apply(lambda password: Server(host, int(port), pg.SUPERUSER, password))
    after = pulumi.ResourceOptions(depends_on=[ready])
    MonitorRole(server, pg.MONITOR_ROLE, secrets[pg.MONITOR_PASSWORD], after)
    for database in settings.postgres.databases:
        Database(server, database.name, database.role, secrets[pg.database_secret(database.role)], after)


def _collections(settings: Settings, root: Path, target: Target, secrets: Secrets, ready: pulumi.Resource) -> None:
    specs = collection_specs(settings, root)
    url, ca_cert = _url(settings, target), secrets.get(qdrant.TLS_CA)
    server, key = target.serving("qdrant"), secrets.get(qdrant.API_KEY)
    made = [
        Collection(
            spec,
            url=url,
            server=server,
            api_key=key,
            ca_cert=ca_cert,
            deletion_policy=settings.collections.deletion_policy,
            opts=pulumi.ResourceOptions(depends_on=[ready]),
        )
        for spec in specs
    ]
    Aliases(specs, url=url, server=server, api_key=key, ca_cert=ca_cert, opts=pulumi.ResourceOptions(depends_on=made))


def outputs(settings: Settings, running: Sequence[Service], target: Target, secrets: Secrets) -> dict[str, Any]:
    """What people and programs read: where each service is and how to get in. A part with a secret is one."""
    names = {service.name for service in running}

    def url(service: str, port: str = "http") -> str:
        return f"http://{target.reach(service, port)}"

    def secret(name: str) -> pulumi.Output[str] | None:
        return secrets.get(name)

    found: dict[str, Any] = {
        "qdrant": {
            "url": _url(settings, target),
            "grpc_url": _url(settings, target, port="grpc"),
            "api_key": secret("qdrant_api_key"),
            "read_only_api_key": secret("qdrant_read_only_api_key"),
        }
    }
    nodes = next(target.nodes(service) for service in running if service.name == "qdrant")
    if len(nodes) > 1:
        found["qdrant"]["nodes"] = {node.name: _url(settings, target, node.number) for node in nodes}
    if qdrant.TLS_CA in secrets:
        found["qdrant"]["ca_cert"] = secrets[qdrant.TLS_CA]
    if "postgres" in names:
        host, _, port = target.reach("postgres", "sql").rpartition(":")
        found["postgres"] = {
            "host": host,
            "port": int(port),
            "user": pg.SUPERUSER,
            "password": secret(pg.SUPERUSER_PASSWORD),
            "databases": {
                database.name: {"owner": database.role, "password": secret(pg.database_secret(database.role))}
                for database in settings.postgres.databases
            },
        }
    if "redis" in names:
        host, _, port = target.reach("redis", "resp").rpartition(":")
        found["redis"] = {"host": host, "port": int(port), "password": secret("redis_password")}
    for name in ("prometheus", "alertmanager", "grafana"):
        if name in names:
            found[name] = {"url": url(name)}
    if "grafana" in names:
        found["grafana"] |= {"user": "admin", "password": secret("grafana_admin_password")}
    found["exporters"] = {
        name.removesuffix("-exporter"): {"url": f"{url(name)}/metrics"}
        for name in sorted(names)
        if name.endswith("-exporter")
    }
    found["left_out"] = target.left_out
    found["deployed"] = {
        "qdrant_version": settings.qdrant.version,
        "qdrant_nodes": settings.qdrant.nodes,
        "disk_gib": volumes_gib(settings),
    }
    return found
