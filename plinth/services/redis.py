"""Redis 7: persistent, bounded in memory, with a password (S1-04)."""

from __future__ import annotations

from plinth.programs.spec import Container, Limits, Program
from plinth.services.spec import File, Health, Service
from plinth.settings import Settings

PASSWORD = "redis_password"  # noqa: S105 - the secret's name
EXPORTER, EXPORTER_PASSWORD = "plinth_exporter", "redis_exporter_password"
# Counters only: no key, no channel, and not SLOWLOG GET, which shows the arguments of other clients' commands.
EXPORTER_RULES = (
    "resetkeys resetchannels -@all +ping +info +client|setname +slowlog|len +latency|latest +latency|histogram"
)

PROGRAM = Program(
    image="redis",
    binaries=("redis-server",),
    package="redis-server",
    variable="PLINTH_REDIS",
    container=Container(
        entrypoint=("redis-server",),
        user="999:999",
        volumes={"data": "/data"},
        # Without a password it answers NOAUTH, which proves that it serves; no password belongs in an argument list.
        check=("sh", "-c", "redis-cli -p {{ port('resp') }} ping | grep -Eq 'PONG|NOAUTH'"),
    ),
)


def is_exported(settings: Settings) -> bool:
    """Return whether an exporter logs in; a managed Redis is not scraped."""
    return settings.redis.enabled and settings.monitoring.exporters.enabled and not settings.managed.redis_url


def service(settings: Settings) -> Service:
    """Return the Redis server. Its file has only the hash of the exporter's password."""
    values = {
        "redis": settings.redis,
        "maxmemory_mib": settings.size.redis_memory_mib,
        "exporter": EXPORTER if is_exported(settings) else None,
        "exporter_password": EXPORTER_PASSWORD,
        "exporter_rules": EXPORTER_RULES,
    }
    return Service(
        name="redis",
        program=PROGRAM,
        # Redis treats the name of its config file as a pattern, and starts without a password where nothing matches.
        arguments=("{{ file('redis.conf') | glob }}",),
        files={"redis.conf": File("config/redis/redis.conf.j2", values)},
        ports={"resp": settings.redis.port},
        volumes={"data": settings.redis.disk_gib},
        health=Health("redis", "resp", secret=PASSWORD),
        # A fork for a snapshot may touch every page while it runs.
        limits=Limits(1, settings.size.redis_memory_mib * 2),
        run_as=("redis", "plinth-redis"),
    )
