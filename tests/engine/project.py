"""A project directory of its own for the engine's tests, and the command line in it."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.conftest import free_port
from tests.project import Environment


class Project(Environment):
    """A local environment of every service, on free ports."""

    def __init__(self, root: Path, engine: str) -> None:
        super().__init__(
            root,
            {
                "plinth:target": "local",
                "plinth:qdrant": {"engine": engine, "http_port": free_port(), "grpc_port": free_port()},
                "plinth:postgres": {"port": free_port(), "databases": [{"name": "digi_core"}]},
                "plinth:redis": {"port": free_port()},
                "plinth:backup": {"port": free_port()},
                "plinth:monitoring": {
                    "prometheus": {"port": free_port()},
                    "alertmanager": {"port": free_port()},
                    "grafana": {"enabled": False},
                    "exporters": {
                        key: free_port() for key in ("node_port", "redis_port", "postgres_port", "plinth_port")
                    },
                },
            },
        )

    def collection_file(self, name: str) -> Path:
        return self.root / "config" / "collections" / f"{name}.yaml"

    def supervised(self) -> dict[str, psutil.Process]:
        """The running processes of the stack by name."""
        daemon = psutil.Process(int((self.root / ".plinth" / "t" / "run" / "supervisord.pid").read_text()))
        return {"supervisord": daemon} | {child.name(): child for child in daemon.children()}


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_ready(project: Project, seconds: float = 30) -> None:
    project.wait_ready(seconds)
