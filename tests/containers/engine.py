"""The Docker engine that tests use, and what a stack left on it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import docker
import docker.errors

from tests.containers import built

LABEL = "plinth.stack"


def why_not() -> str | None:
    """Why no real container can be made here, or None."""
    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        return f"no Docker engine answers ({str(error)[:80]}): start one, or run scripts/docker-engine as root"
    return built.missing()


class Containers:
    """The containers of one stack."""

    def __init__(self, client: docker.DockerClient, stack: str) -> None:
        self.client, self.stack = client, stack

    def running(self) -> dict[str, Any]:
        """By service or node, those that run."""
        found = self.client.containers.list(filters={"label": f"{LABEL}={self.stack}"})
        return {container.name.removeprefix(f"plinth-{self.stack}-"): container for container in found}

    def pid(self, name: str) -> int:
        return int(self.client.api.inspect_container(f"plinth-{self.stack}-{name}")["State"]["Pid"])

    def inspected(self) -> dict[str, Any]:
        return {name: self.client.api.inspect_container(container.id) for name, container in self.running().items()}

    def wait_healthy(self, seconds: float = 90) -> None:
        """Until every container that has a health command is well by it."""
        end = time.monotonic() + seconds
        while True:
            states = {
                name: about["State"].get("Health", {}).get("Status", "healthy")
                for name, about in self.inspected().items()
            }
            if set(states.values()) == {"healthy"}:
                return
            assert time.monotonic() < end, states
            time.sleep(0.5)

    def remove(self) -> None:
        """Everything of the stack, volumes too."""
        filters = {"label": f"{LABEL}={self.stack}"}
        for container in self.client.containers.list(all=True, filters=filters):
            container.remove(v=True, force=True)
        for kind in (self.client.volumes, self.client.networks):
            for found in kind.list(filters=filters):
                found.remove()
        # Where systemd does not, nobody clears away what was above a container.
        for above in Path("/sys/fs/cgroup").glob(f"**/plinth-{self.stack.replace('-', '_')}-*.slice"):
            with contextlib.suppress(OSError):
                above.rmdir()
