"""Docker environments for tests: settings on free ports with the images that were built."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Mapping
from typing import Any

import psycopg
import redis

from plinth.paths import home
from tests.conftest import free_port
from tests.containers.engine import Containers
from tests.project import Environment

STEP = 10
# As many as an engine in a sandbox has to give.
OPEN_FILES = 8192


class Stack(Environment):
    """An environment, its containers and its services from outside."""

    containers: Containers
    images: dict[str, str]

    def secrets(self) -> list[str]:
        """Everything that was generated for it."""
        known: dict[str, str] = json.loads((home(self.root, self.env).data / "secrets.json").read_text())
        assert len(known) >= 5
        return list(known.values())

    def postgres(self) -> psycopg.Connection[Any]:
        where = self.outputs()["postgres"]
        password = where["databases"]["digi_core"]["password"]
        return psycopg.connect(
            host=where["host"], port=where["port"], dbname="digi_core", user="digi_core", password=password
        )

    def redis(self) -> redis.Redis:
        where = self.outputs()["redis"]
        return redis.Redis(host=where["host"], port=where["port"], password=where["password"])


def settings(images: Mapping[str, str], nodes: int = 1, **others: Any) -> dict[str, Any]:
    """A small environment with every service that an image can be built for; Plinth's own is nowhere yet."""
    own = {"plinth": f"localhost/plinth-tests/plinth:{secrets.token_hex(3)}"}
    qdrant: dict[str, Any] = {"http_port": free_span(nodes), "grpc_port": free_span(nodes), "memory_mib": 1024}
    if nodes > 1:
        qdrant |= {"nodes": nodes, "replication_factor": 2}
    return {
        "plinth:target": "docker",
        "plinth:docker": {"images": own | dict(images), "nofile": OPEN_FILES},
        "plinth:qdrant": qdrant,
        "plinth:postgres": {"port": free_port(), "databases": [{"name": "digi_core"}]},
        "plinth:redis": {"port": free_port()},
        "plinth:monitoring": {
            "prometheus": {"port": free_port()},
            "alertmanager": {"port": free_port()},
            "grafana": {"enabled": False},
            "exporters": {key: free_port() for key in ("node_port", "redis_port", "postgres_port", "plinth_port")},
        },
        "plinth:backup": {"port": free_port()},
        **{f"plinth:{key}": value for key, value in others.items()},
    }


def free_span(nodes: int) -> int:
    """A port that is free together with those that the other nodes get."""
    while True:
        first = free_port()
        if all(is_free(first + node * STEP) for node in range(1, nodes + 4)):
            return first


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
