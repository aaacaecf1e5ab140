"""Docker environments for tests: settings on free ports with the images that were built."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from tests.conftest import free_port

STEP = 10
# As many as an engine in a sandbox has to give.
OPEN_FILES = 8192


def settings(images: Mapping[str, str], nodes: int = 1, **others: Any) -> dict[str, Any]:
    """A small environment with every service that an image can be built for."""
    qdrant: dict[str, Any] = {"http_port": free_span(nodes), "grpc_port": free_span(nodes), "memory_mib": 1024}
    if nodes > 1:
        qdrant |= {"nodes": nodes, "replication_factor": 2}
    return {
        "plinth:target": "docker",
        "plinth:docker": {"images": dict(images), "nofile": OPEN_FILES},
        "plinth:qdrant": qdrant,
        "plinth:postgres": {"port": free_port(), "databases": [{"name": "digi_core"}]},
        "plinth:redis": {"port": free_port()},
        "plinth:monitoring": {
            "prometheus": {"port": free_port()},
            "alertmanager": {"port": free_port()},
            "grafana": {"enabled": False},
            "exporters": {key: free_port() for key in ("node_port", "redis_port", "postgres_port")},
        },
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
