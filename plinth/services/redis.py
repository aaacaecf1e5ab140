"""Redis 7: persistent, bounded in memory, with a password (S1-04)."""

from __future__ import annotations

from plinth.services.spec import Container, File, Health, Limits, Program, Service
from plinth.settings import Settings

PASSWORD = "redis_password"  # noqa: S105 - the secret's name

PROGRAM = Program(
    image="redis",
    binaries=("redis-server",),
    package="redis-server",
    variable="PLINTH_REDIS",
    container=Container(
        entrypoint=("redis-server",),
        user="999:999",
        volumes={"data": "/data"},
        # Without a password it answers NOAUTH, and that is an answer; the password is nothing for an argument list.
        check=("sh", "-c", "redis-cli -p {{ port('resp') }} ping | grep -Eq 'PONG|NOAUTH'"),
    ),
)


def service(settings: Settings) -> Service:
    """The Redis server."""
    memory = settings.size.redis_memory_mib
    return Service(
        name="redis",
        program=PROGRAM,
        arguments=("{{ file('redis.conf') }}",),
        files={"redis.conf": File("config/redis/redis.conf.j2", {"redis": settings.redis, "maxmemory_mib": memory})},
        ports={"resp": settings.redis.port},
        volumes={"data": settings.redis.disk_gib},
        health=Health("redis", "resp", secret=PASSWORD),
        # A fork for a snapshot may touch every page while it runs.
        limits=Limits(1, memory * 2),
        run_as=("redis", "plinth-redis"),
    )
