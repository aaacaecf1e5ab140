"""Postgres 15 and later: one cluster of databases, passwords by SCRAM, no socket but TCP."""

from __future__ import annotations

from urllib.parse import urlsplit

from plinth.programs.postgres import PROGRAM
from plinth.programs.spec import Limits
from plinth.services.spec import File, Health, Service
from plinth.settings import Settings

SUPERUSER = "postgres"
SUPERUSER_PASSWORD = "postgres_password"  # noqa: S105 - the secret's name
MONITOR_ROLE = "plinth_monitor"
MONITOR_PASSWORD = "postgres_monitor_password"  # noqa: S105 - the secret's name


def superuser(settings: Settings) -> str:
    """Return the role that may create databases; a managed server has its own name for it."""
    url = settings.managed.postgres_url
    return urlsplit(url).username or SUPERUSER if url else SUPERUSER


def database_secret(role: str) -> str:
    """Return the name of the secret that holds a database owner's password."""
    return f"postgres_{role}_password"


def service(settings: Settings) -> Service:
    """Return the Postgres server; its databases are resources of their own, so that one added later is created too."""
    memory = settings.size.postgres_memory_mib
    values = {
        "shared_buffers_mib": memory // 4,
        "effective_cache_size_mib": memory * 3 // 4,
        "work_mem_mib": max(4, memory // (4 * settings.size.postgres_connections)),
        "maintenance_work_mem_mib": max(32, memory // 16),
        "max_connections": settings.size.postgres_connections,
    }
    return Service(
        name="postgres",
        program=PROGRAM,
        arguments=("-D", "{{ volume('data') }}", "-c", "config_file={{ file('postgresql.conf') }}"),
        files={
            "postgresql.conf": File("config/postgres/postgresql.conf.j2", values),
            "pg_hba.conf": File("config/postgres/pg_hba.conf.j2"),
        },
        secret_files=(SUPERUSER_PASSWORD,),
        initialise=(
            "initdb",
            "--pgdata={{ volume('data') }}",
            f"--username={SUPERUSER}",
            "--pwfile={{ secret_file('" + SUPERUSER_PASSWORD + "') }}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--data-checksums",
        ),
        ports={"sql": settings.postgres.port},
        volumes={"data": settings.postgres.disk_gib},
        health=Health("postgres", "sql", secret=SUPERUSER_PASSWORD),
        limits=Limits(settings.size.cpus, memory),
        run_as=("postgres", "plinth-postgres"),
        # SIGINT is Postgres' fast shutdown; SIGTERM would wait for every client to leave.
        stop_signal="INT",
        stop_grace_s=60,
    )
