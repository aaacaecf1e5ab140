"""Neo4j 5, community edition, off by default (S1-02). Only the enterprise edition has a metrics page."""

from __future__ import annotations

import hashlib

from plinth.programs.neo4j import PROGRAM
from plinth.programs.spec import Limits
from plinth.services.spec import File, Health, Service
from plinth.settings import Settings

USER = "neo4j"
PASSWORD = "neo4j_password"  # noqa: S105 - the secret's name
ROUNDS = 1024
SALT_BYTES = 16


def service(settings: Settings) -> Service:
    """Return the Neo4j server: half of its memory is Java's heap, a quarter is page cache, the rest for the system."""
    memory = settings.size.neo4j_memory_mib
    sizes = {"heap_mib": memory // 2, "pagecache_mib": memory // 4}
    return Service(
        name="neo4j",
        program=PROGRAM,
        arguments=("console",),
        # It unpacks a native library before it maps it; in containers /tmp is mounted noexec.
        environment={
            "NEO4J_CONF": "{{ file('') }}",
            "JDK_JAVA_OPTIONS": "-Djna.tmpdir={{ volume('data') }}/native",
        },
        files={
            "neo4j.conf": File("config/neo4j/neo4j.conf.j2", sizes),
            "auth.ini": File("config/neo4j/auth.ini.j2", {"password": PASSWORD, "credential": credential}),
        },
        # Neo4j sets a first password by an argument, which any process of the machine could read.
        initialise=("install", "-D", "-m", "0600", "{{ file('auth.ini') }}", "{{ volume('data') }}/dbms/auth.ini"),
        ports={"http": settings.neo4j.http_port, "bolt": settings.neo4j.bolt_port},
        volumes={"data": settings.neo4j.disk_gib},
        health=Health("neo4j", "http", secret=PASSWORD, deadline_s=300),
        limits=Limits(settings.size.cpus, memory),
        run_as=("neo4j", "plinth-neo4j"),
        stop_grace_s=120,
        optional=True,
    )


def credential(password: str) -> str:
    """Return a password's hash in the format of Neo4j 5.26's `dbms/auth.ini`: SHA-256 over salt and password, repeated.

    The salt follows from the password, so that the same settings render the same file; generated ones are never alike.
    """
    salt = hashlib.sha256(f"plinth/neo4j/{password}".encode()).digest()[:SALT_BYTES]
    digest = salt + password.encode()
    for _ in range(ROUNDS):
        digest = hashlib.sha256(digest).digest()
    return f"SHA-256,{digest.hex()},{salt.hex()},{ROUNDS}"
