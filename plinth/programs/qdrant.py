"""The programs that serve Qdrant's API: its own binary, and the embedded server."""

from __future__ import annotations

import sys
from dataclasses import replace

from plinth.programs.healthchecks import bash_http, bash_tcp
from plinth.programs.spec import Container, Program

EMBEDDED = (sys.executable, "-m", "plinth.embedded")


AUDIT = "audit"


# The binary, not the image's entrypoint.sh: as process 1 that script ends at SIGTERM without waiting for the server.
CONTAINER = Container(
    entrypoint=("./qdrant",),
    user="1000:1000",
    # The image gives its account no directory for the audit log, and /var/tmp to everybody.
    volumes={"storage": "/qdrant/storage", "snapshots": "/qdrant/snapshots", AUDIT: "/var/tmp"},  # noqa: S108
    check=bash_http("http", "/readyz"),
)


def program(engine: str, version: str | None = None, *, tls: bool = False) -> Program:
    """Return the program for Qdrant's API: `auto` prefers a binary, `server` requires one, `embedded` ignores it."""
    return Program(
        image="qdrant",
        binaries=() if engine == "embedded" else ("qdrant",),
        package="",
        variable=None if engine == "embedded" else "PLINTH_QDRANT",
        substitute=() if engine == "server" else EMBEDDED,
        version=version,
        # Bash has no TLS; the port opens once every collection is loaded, which is most of what /readyz reports.
        container=replace(CONTAINER, check=bash_tcp("http")) if tls else CONTAINER,
    )
