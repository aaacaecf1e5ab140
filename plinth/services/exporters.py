"""Prometheus exporters for the host, Redis and Postgres, whose own ports serve no metrics (S1-09).

And Plinth's own, for what Qdrant does not report: the state of collections, test searches, backups.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from plinth.programs.healthchecks import bash_tcp, nc_tcp
from plinth.programs.spec import OWN_IMAGE, Container, Limits, Program
from plinth.qdrant.spec import CollectionSpec
from plinth.services import mutual_tls
from plinth.services import postgres as pg
from plinth.services import redis as rd
from plinth.services.qdrant import READ_ONLY_API_KEY, tls_ca
from plinth.services.spec import File, Health, Scrape, Service
from plinth.settings import Settings, TargetName
from plinth.status_files.backup_runs import FILE as BACKUP_STATE
from plinth.status_files.events import FILE as MARKS

WEB = "config/exporter/web.yaml.j2"
_WEB = "--web.config.file={{ file('web.yaml') }}"
_LISTEN = "--web.listen-address={{ bind }}:{{ port('http') }}"


PLINTH = "plinth-exporter"
STATE = "state"
# Its path in a container.
STATE_DIRECTORY = "/var/lib/plinth/state"
# Of plinth.services.backup, which knows this module.
BACKUPS = "plinth-backup"


def services(settings: Settings) -> list[Service]:
    """Return the exporters of the deployed services, without Plinth's own."""
    found = [_node(settings)]
    if rd.is_exported(settings):
        found.append(_redis(settings))
    if settings.postgres.enabled and not settings.managed.postgres_url:
        found.append(_postgres(settings))
    return found


def _node(settings: Settings) -> Service:
    mutual, identity = mutual_tls.is_on(settings), mutual_tls.Identity("node-exporter")
    return _exporter(
        "node-exporter",
        Program(
            image="node-exporter",
            binaries=("prometheus-node-exporter", "node_exporter"),
            package="prometheus-node-exporter",
            container=Container(entrypoint=("node_exporter",), check=nc_tcp("http")),
        ),
        settings.monitoring.exporters.node_port,
        (_LISTEN, *((_WEB,) if mutual else ())),
        files={"web.yaml": File(WEB, {"identity": identity})} if mutual else {},
        secret_files=identity.files if mutual else (),
        mutual=mutual,
    )


def _redis(settings: Settings) -> Service:
    mutual, identity = mutual_tls.is_on(settings), mutual_tls.Identity("redis-exporter")
    return _exporter(
        "redis-exporter",
        Program(
            image="redis-exporter",
            binaries=("prometheus-redis-exporter", "redis_exporter"),
            package="prometheus-redis-exporter",
            # The image holds this one file: no shell, so no health command.
            container=Container(entrypoint=("/redis_exporter",), user="59000:59000"),
        ),
        settings.monitoring.exporters.redis_port,
        (
            _LISTEN,
            "--redis.addr=redis://{{ address('redis', 'resp') }}",
            f"--redis.user={rd.EXPORTER}",
            "--redis.password-file={{ file('passwords.json') }}",
            *(_mutual_tls(identity) if mutual else ()),
        ),
        files={
            "passwords.json": File(
                "config/redis/exporter.json.j2", {"user": rd.EXPORTER, "password": rd.EXPORTER_PASSWORD}
            )
        },
        # Versions before 1.83 do not know it: their /scrape is open to every client with a certificate.
        environment={"REDIS_EXPORTER_DISABLE_SCRAPE_ENDPOINT": "true"},
        secret_files=identity.files if mutual else (),
        needs=("redis",),
        mutual=mutual,
    )


def _mutual_tls(identity: mutual_tls.Identity) -> tuple[str, ...]:
    """Return redis_exporter's flags; with a CA it requires a client certificate."""
    flags = zip(("ca-cert", "cert", "key"), identity.files, strict=True)
    return tuple(f"--tls-server-{flag}-file={{{{ secret_file('{name}') }}}}" for flag, name in flags)


def _postgres(settings: Settings) -> Service:
    mutual, identity = mutual_tls.is_on(settings), mutual_tls.Identity("postgres-exporter")
    return _exporter(
        "postgres-exporter",
        Program(
            image="postgres-exporter",
            binaries=("prometheus-postgres-exporter", "postgres_exporter"),
            package="prometheus-postgres-exporter",
            container=Container(entrypoint=("postgres_exporter",), check=nc_tcp("http")),
        ),
        settings.monitoring.exporters.postgres_port,
        (_LISTEN, *((_WEB,) if mutual else ())),
        files={"web.yaml": File(WEB, {"identity": identity})} if mutual else {},
        environment={
            "DATA_SOURCE_URI": "{{ address('postgres', 'sql') }}/postgres?sslmode=disable",
            "DATA_SOURCE_USER": pg.MONITOR_ROLE,
            "DATA_SOURCE_PASS_FILE": "{{ secret_file('" + pg.MONITOR_PASSWORD + "') }}",
        },
        secret_files=(pg.MONITOR_PASSWORD, *(identity.files if mutual else ())),
        needs=("postgres",),
        mutual=mutual,
    )


def plinth(settings: Settings, beside: Sequence[Service], collections: Sequence[CollectionSpec]) -> Service:
    """Return Plinth's own exporter.

    The command line leaves its results in its volume `state`; backups there too, or in their own. It queries Qdrant
    with the read-only key, and measures what the services ``beside`` it use of the machine.
    """
    key, ca = READ_ONLY_API_KEY if settings.qdrant.auth else None, tls_ca(settings.qdrant.tls)
    backups = settings.backup.enabled and settings.target is TargetName.local
    # It comes last, for it scrapes all others.
    scraper = {"prometheus": "http"} if settings.monitoring.prometheus.enabled else {}
    values = {
        "key": key,
        "ca": ca,
        "scheme": "https" if settings.qdrant.tls else "http",
        **watched(settings, collections),
        "backup_state": BACKUP_STATE if settings.backup.enabled else None,
        # Each process writes to a directory of its own; containers share the volume.
        "backup": BACKUPS if backups else None,
        "marks": MARKS,
        "services": {service.name: next(iter(service.ports)) for service in beside} | {PLINTH: "http"} | scraper,
        "volumes": {service.name: sorted(service.volumes) for service in beside if service.volumes},
    }
    return _exporter(
        PLINTH,
        Program(
            image=OWN_IMAGE,
            binaries=(),
            package="",
            substitute=(sys.executable, "-m", "plinth.exporter"),
            container=Container(
                entrypoint=("python3", "-m", "plinth.exporter"),
                volumes={STATE: STATE_DIRECTORY},
                check=bash_tcp("http"),
            ),
        ),
        settings.monitoring.exporters.plinth_port,
        ("--config-path", "{{ file('config.yaml') }}"),
        files={"config.yaml": File("config/exporter/config.yaml.j2", values)},
        secret_files=tuple(name for name in (key, ca) if name),
        volumes={STATE: 1},
        limits=Limits(0.5, 192),
        needs=("qdrant",),
        optional=True,
        reads=((BACKUPS, STATE),) if backups else (),
        reads_cgroups=True,
    )


def watched(settings: Settings, collections: Sequence[CollectionSpec]) -> dict[str, Any]:
    """Return the desired state that Plinth's own exporter compares Qdrant with, from the settings."""
    return {
        "peers": settings.qdrant.nodes,
        "memory_limit_bytes": settings.size.memory_mib * 2**20,
        "collections": [spec.to_data() for spec in collections],
    }


def _exporter(
    name: str,
    program: Program,
    port: int,
    arguments: tuple[str, ...],
    *,
    files: dict[str, File] | None = None,
    secret_files: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    volumes: dict[str, int] | None = None,
    limits: Limits = Limits(0.25, 64),  # noqa: B008 - frozen
    needs: tuple[str, ...] = (),
    optional: bool = False,
    reads: tuple[tuple[str, str], ...] = (),
    reads_cgroups: bool = False,
    mutual: bool = False,
) -> Service:
    return Service(
        name=name,
        program=program,
        arguments=arguments,
        files=dict(files or {}),
        secret_files=secret_files,
        environment=environment or {},
        ports={"http": port},
        health=Health(
            "http",
            "http",
            "/metrics",
            deadline_s=30,
            tls=mutual,
            ca=mutual_tls.CA if mutual else None,
            mutual=mutual,
        ),
        scrape=Scrape("http", scheme="https", ca=mutual_tls.CA, mutual=True) if mutual else Scrape("http"),
        limits=limits,
        volumes=volumes or {},
        needs=needs,
        run_as=(name if name == PLINTH else f"plinth-{name}",),
        launcher=name == PLINTH,
        written_by_root=(STATE,) if name == PLINTH else (),
        optional=optional,
        reads=reads,
        reads_cgroups=reads_cgroups,
        identity="server" if mutual else None,
    )
