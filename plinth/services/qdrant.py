"""Qdrant: REST on 6333, gRPC on 6334, two keys, telemetry off.

Where a machine has no `qdrant` binary the embedded engine serves the same REST API from the same config file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from plinth.errors import UserError
from plinth.services.spec import File, Health, Limits, Program, Scrape, Service
from plinth.settings import Settings

API_KEY = "qdrant_api_key"
READ_ONLY_API_KEY = "qdrant_read_only_api_key"

EMBEDDED = (sys.executable, "-m", "plinth.embedded")


def program(engine: str) -> Program:
    """What serves Qdrant's API: `auto` prefers a binary, `server` insists on one, `embedded` passes it over."""
    return Program(
        image="qdrant",
        binaries=() if engine == "embedded" else ("qdrant",),
        package="",
        variable=None if engine == "embedded" else "PLINTH_QDRANT",
        substitute=() if engine == "server" else EMBEDDED,
    )


def refuse_other_engine(engine: str, storage: Path, *, embedded_serves: bool) -> None:
    """Refuse to start the one engine over the other's data: each sees its own files alone.

    Only `auto` is refused: a named engine is a decision.
    """
    holds = {
        "embedded": any(storage.glob("embedded/*/collection.json")),
        "server": any(storage.glob("collections/*/config.json")),
    }
    serves, other = ("embedded", "server") if embedded_serves else ("server", "embedded")
    if engine == "auto" and holds[other] and not holds[serves]:
        what = {"embedded": "the embedded engine", "server": "a real Qdrant server"}
        raise UserError(
            f"{storage} holds collections of {what[other]}, and {what[serves]} would be started now and not see them; "
            f"set plinth:qdrant.engine to {other} to go on with them, or to {serves} to leave them aside."
        )


def service(settings: Settings) -> Service:
    """One Qdrant node."""
    wanted = settings.qdrant
    return Service(
        name="qdrant",
        program=program(wanted.engine),
        arguments=("--config-path", "{{ file('config.yaml') }}"),
        files={"config.yaml": File("config/qdrant/config.yaml.j2", {"qdrant": wanted})},
        ports={"http": wanted.http_port, "grpc": wanted.grpc_port},
        volumes={"storage": settings.size.disk_gib, "snapshots": settings.size.disk_gib},
        # The port opens only once every collection is loaded, so a start takes as long as the data is big.
        health=Health("http", "http", "/readyz", deadline_s=300),
        scrape=Scrape("http", secret=READ_ONLY_API_KEY if wanted.auth else None),
        limits=Limits(settings.size.cpus, settings.size.memory_mib),
    )
