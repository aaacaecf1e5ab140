"""The scheduled backups: Plinth itself, next to the stores that it backs up."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from plinth.programs.healthchecks import bash_tcp
from plinth.programs.spec import OWN_IMAGE, Container, Limits, Program
from plinth.services import neo4j as neo
from plinth.services import postgres as pg
from plinth.services import redis as rd
from plinth.services.exporters import PLINTH as EXPORTER
from plinth.services.exporters import STATE
from plinth.services.qdrant import API_KEY, tls_ca
from plinth.services.spec import File, Health, Service
from plinth.settings import Backup, Settings, TargetName
from plinth.status_files.backup_runs import FILE
from plinth.system.http_client import proxy_variables

NAME = "plinth-backup"
ACCOUNT = NAME
PASSWORD = "backup_password"  # noqa: S105 - the secret's name
PROGRAM = Program(
    image=OWN_IMAGE,
    binaries=(),
    package="",
    substitute=(sys.executable, "-m", "plinth.backup"),
    calls=("restic", "pg_dump", "redis-cli"),
    container=Container(
        entrypoint=("python3", "-m", "plinth.backup"),
        volumes={"work": "/var/lib/plinth/work", "repository": "/var/lib/plinth/repository"},
        check=bash_tcp("http"),
    ),
)
S3_KEY_ID, S3_SECRET = "backup_s3_access_key_id", "backup_s3_secret_access_key"
REST_PASSWORD = "backup_rest_password"  # noqa: S105 - the secret's name
CA = "backup_ca"


def container_of(env: str) -> str:
    """Return the name of the backup container."""
    return f"plinth-{env}-{NAME}"


def service(settings: Settings, beside: Sequence[Service]) -> Service:
    """Return the scheduler, which backs up the data of the services ``beside`` it and reports to the exporter."""
    names = {service.name for service in beside}
    wanted = settings.backup
    key, ca = API_KEY if settings.qdrant.auth else None, tls_ca(settings.qdrant.tls)
    repository_ca = CA if wanted.ca_cert else None
    logins = repository_logins(wanted)
    stores = {
        "postgres": {"user": pg.SUPERUSER, "password": pg.SUPERUSER_PASSWORD},
        "redis": {"password": rd.PASSWORD},
        "neo4j": {"user": neo.USER, "password": neo.PASSWORD},
    }
    taken = {name: about for name, about in stores.items() if name in names}
    local = settings.target is TargetName.local
    # A process writes to a directory that only it may write; a container shares the exporter's volume.
    watcher = NAME if local else EXPORTER if EXPORTER in names else None
    values = {
        "name": wanted.name,
        "extensions": wanted.extensions,
        "state_of": watcher,
        "state": FILE,
        "repository": wanted.repository,
        "password": PASSWORD,
        "repository_secrets": logins,
        "repository_ca": repository_ca,
        **repository_words(wanted),
        "upload_kib": wanted.upload_kib,
        "scheme": "https" if settings.qdrant.tls else "http",
        "key": key,
        "ca": ca,
        # In containers the volumes of others are theirs alone.
        "snapshots": local,
        "grafana": "grafana" in names,
        "not_taken": not_taken(settings),
        "append_only": wanted.append_only,
        "keep": wanted.keep.model_dump(),
        "schedule": schedule(wanted),
        **{name: taken.get(name) for name in stores},
    }
    secrets = (PASSWORD, *logins.values(), repository_ca, key, ca, *(about["password"] for about in taken.values()))
    return Service(
        name=NAME,
        program=PROGRAM,
        # A tmpfs is too small for restic's packs.
        environment={"TMPDIR": "{{ volume('work') }}", **(_proxy(wanted.repository) if local else {})},
        arguments=("--config", "{{ file('config.yaml') }}", "schedule"),
        files={"config.yaml": File("config/backup/config.yaml.j2", values)},
        secret_files=tuple(name for name in secrets if name),
        ports={"http": wanted.port},
        volumes={"work": wanted.disk_gib, "repository": wanted.disk_gib, **({STATE: 1} if local else {})},
        shares={EXPORTER: STATE} if EXPORTER in names and not local else {},
        reads=(("grafana", "data"),) if "grafana" in names else (),
        health=Health("http", "http", "/metrics", deadline_s=30),
        # restic holds the index of its repository in memory, and a drill runs second copies of the stores.
        limits=Limits(1, 1024),
        needs=("qdrant", *taken),
        # Root's process only serves another of that account (plinth/backup/temporary/launcher.py).
        run_as=(ACCOUNT,),
        launcher=True,
        starts_others=True,
        stop_grace_s=60,
        optional=True,
    )


def _proxy(repository: str | None) -> dict[str, str]:
    """Return this machine's proxy for a repository on a server; empty for a proxy with a login, which is a secret."""
    # It needs the services, to locate their programs.
    from plinth.settings.repository_address import server

    url = server(repository or "")
    variables = proxy_variables(url) if url else {}
    return {} if any("@" in value for value in variables.values()) else variables


def repository_logins(backup: Backup) -> dict[str, str]:
    """Return restic's variables that log in to the repository's server, each with the name of its secret."""
    s3 = {"AWS_ACCESS_KEY_ID": S3_KEY_ID, "AWS_SECRET_ACCESS_KEY": S3_SECRET} if backup.s3 else {}
    return s3 | ({"RESTIC_REST_PASSWORD": REST_PASSWORD} if backup.rest else {})


def repository_words(wanted: Backup) -> dict[str, object]:
    """Return restic's settings for a repository's server, without its secrets."""
    s3 = wanted.s3
    region = {"AWS_DEFAULT_REGION": s3.region} if s3 and s3.region else {}
    return {
        "repository_environment": region | ({"RESTIC_REST_USERNAME": wanted.rest.user} if wanted.rest else {}),
        "repository_options": ["s3.bucket-lookup=path"] if s3 and s3.path_style else [],
    }


def schedule(wanted: Backup) -> dict[str, object]:
    """Return the cron expression of each job."""
    return {
        "backup": wanted.schedule,
        "check": wanted.check_schedule,
        "drill": wanted.drill_schedule,
        "check_parts": wanted.check_parts,
    }


def not_taken(settings: Settings) -> dict[str, str]:
    """Return the stores that are enabled and that no backup covers, each with what to do."""
    managed = settings.managed
    used = {
        "qdrant": managed.qdrant_url,
        "postgres": settings.postgres.enabled and managed.postgres_url,
        "redis": settings.redis.enabled and managed.redis_url,
    }
    return {name: f"{url} is run by someone else; ask there for its backups." for name, url in used.items() if url}
