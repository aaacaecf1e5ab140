"""A project directory of its own for the engine's tests, and the command line in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from plinth.qdrant.client import Qdrant
from tests.conftest import ROOT, free_port

BUILT = ROOT / ".plinth" / "bin"


class Project:
    """A project directory with one environment, and the command line in it."""

    def __init__(self, root: Path, engine: str) -> None:
        self.root = root
        for name in ("config", "monitoring", "load"):
            shutil.copytree(ROOT / name, root / name)
        shutil.copy(ROOT / "Pulumi.yaml", root)
        (root / "stacks").mkdir()
        self.settings: dict[str, Any] = {
            "plinth:target": "local",
            "plinth:qdrant": {"engine": engine, "http_port": free_port(), "grpc_port": free_port()},
            "plinth:postgres": {"port": free_port(), "databases": [{"name": "digi_core"}]},
            "plinth:redis": {"port": free_port()},
            "plinth:monitoring": {
                "prometheus": {"port": free_port()},
                "alertmanager": {"port": free_port()},
                "grafana": {"enabled": False},
                "exporters": {key: free_port() for key in ("node_port", "redis_port", "postgres_port")},
            },
        }
        self.save()

    def save(self) -> None:
        (self.root / "stacks" / "Pulumi.t.yaml").write_text(yaml.safe_dump({"config": self.settings}))

    def plinth(self, *arguments: str, expect: int = 0, **environment: str) -> str:
        """Run a command; its exit code must be the expected one, and no traceback may show."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "PROBE_", "ENABLE_"))}
        path = f"{BUILT}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [sys.executable, "-c", "from plinth.cli import main; main()", *arguments],
            cwd=self.root,
            env={**inherited, "PATH": path, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == expect, said
        assert "Traceback" not in said, said
        return said

    def json(self, *arguments: str, expect: int = 0) -> Any:
        return json.loads(self.plinth(*arguments, "--json", expect=expect))

    def outputs(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json("outputs", "t", "--show-secrets")
        return found

    def qdrant(self) -> Qdrant:
        where = self.outputs()["qdrant"]
        return Qdrant(where["url"], where["api_key"])

    def collection_file(self, name: str) -> Path:
        return self.root / "config" / "collections" / f"{name}.yaml"

    def supervised(self) -> dict[str, psutil.Process]:
        """The running processes of the stack by name."""
        daemon = psutil.Process(int((self.root / ".plinth" / "t" / "run" / "supervisord.pid").read_text()))
        return {"supervisord": daemon} | {child.name(): child for child in daemon.children()}


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_ready(project: Project, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            project.plinth("status", "t", "--no-cache")
            return
        except AssertionError:
            if time.monotonic() > end:
                raise
