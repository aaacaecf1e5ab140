"""The program of Neo4j."""

from __future__ import annotations

from plinth.programs.healthchecks import bash_http
from plinth.programs.spec import Container, Program

PROGRAM = Program(
    image="neo4j",
    binaries=("neo4j",),
    package="",
    variable="PLINTH_NEO4J",
    calls=("java",),
    container=Container(
        entrypoint=("neo4j",),
        user="7474:7474",
        volumes={"data": "/data"},
        # The image names /logs a volume; the server prints to its output.
        tmpfs=("/tmp", "/logs"),  # noqa: S108 - paths inside a container of its own
        check=bash_http("http", "/"),
    ),
)
