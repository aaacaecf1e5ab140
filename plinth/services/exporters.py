"""Prometheus exporters for the host, Redis and Postgres: their own ports speak no metrics (S1-09)."""

from __future__ import annotations

from plinth.services import postgres as pg
from plinth.services import redis as rd
from plinth.services.checks import wget
from plinth.services.spec import Container, File, Health, Limits, Program, Scrape, Service
from plinth.settings import Settings

_LISTEN = "--web.listen-address={{ bind }}:{{ port('http') }}"


def services(settings: Settings) -> list[Service]:
    """The exporters of what is enabled."""
    found = [_node(settings)]
    if settings.redis.enabled:
        found.append(_redis(settings))
    if settings.postgres.enabled:
        found.append(_postgres(settings))
    return found


def _node(settings: Settings) -> Service:
    return _exporter(
        "node-exporter",
        Program(
            image="node-exporter",
            binaries=("prometheus-node-exporter", "node_exporter"),
            package="prometheus-node-exporter",
            container=Container(entrypoint=("node_exporter",), check=wget("http", "/metrics")),
        ),
        settings.monitoring.exporters.node_port,
        (_LISTEN,),
    )


def _redis(settings: Settings) -> Service:
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
            "--redis.password-file={{ file('passwords.json') }}",
        ),
        files={"passwords.json": File("config/redis/exporter.json.j2", {"password": rd.PASSWORD})},
        needs=("redis",),
    )


def _postgres(settings: Settings) -> Service:
    return _exporter(
        "postgres-exporter",
        Program(
            image="postgres-exporter",
            binaries=("prometheus-postgres-exporter", "postgres_exporter"),
            package="prometheus-postgres-exporter",
            container=Container(entrypoint=("postgres_exporter",), check=wget("http", "/metrics")),
        ),
        settings.monitoring.exporters.postgres_port,
        (_LISTEN,),
        environment={
            "DATA_SOURCE_URI": "{{ address('postgres', 'sql') }}/postgres?sslmode=disable",
            "DATA_SOURCE_USER": pg.MONITOR_ROLE,
            "DATA_SOURCE_PASS_FILE": "{{ secret_file('" + pg.MONITOR_PASSWORD + "') }}",
        },
        secret_files=(pg.MONITOR_PASSWORD,),
        needs=("postgres",),
    )


def _exporter(
    name: str,
    program: Program,
    port: int,
    arguments: tuple[str, ...],
    *,
    files: dict[str, File] | None = None,
    secret_files: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    needs: tuple[str, ...] = (),
) -> Service:
    return Service(
        name=name,
        program=program,
        arguments=arguments,
        files=dict(files or {}),
        secret_files=secret_files,
        environment=environment or {},
        ports={"http": port},
        health=Health("http", "http", "/metrics", deadline_s=30),
        scrape=Scrape("http"),
        limits=Limits(0.25, 64),
        needs=needs,
        run_as=("prometheus", "nobody"),
    )
