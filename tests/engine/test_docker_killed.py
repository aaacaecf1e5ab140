"""A first `up` on docker, killed again and again: each time with something on the engine that no state has yet."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from tests.containers import built
from tests.containers.applied import Applied, needs_containers
from tests.containers.engine import Containers
from tests.containers.provider import DockerProvider
from tests.containers.stack import settings
from tests.project import Environment, needs_pulumi
from tests.provider import served

pytestmark = [pytest.mark.engine, pytest.mark.docker, needs_pulumi, needs_containers]
OTHERS: dict[str, Any] = {
    "postgres": {"enabled": False},
    "backup": {"enabled": False},
    "monitoring": {key: {"enabled": False} for key in ("prometheus", "alertmanager", "grafana", "exporters")},
    "collections": {"only": ["trades"]},
}
# What is on the engine when the run is killed, in the order in which a first run gets there.
MOMENTS = ("", "-redis-config", "-redis")
RELEASED = shutil.which("pulumi-resource-docker")


class Slow(Applied):
    """Says that a thing is made long after it is: a kill in between is sure to come in time."""

    def create(self, kind: str, inputs: dict[str, object]) -> tuple[str, dict[str, object]]:
        made = super().create(kind, inputs)
        if kind in ("network", "container"):
            self.late.wait(1)
        return made

    def __init__(self, client: docker.DockerClient) -> None:
        super().__init__(client)
        self.late = threading.Event()


@contextmanager
def plugin(kind: str, client: docker.DockerClient) -> Iterator[tuple[dict[str, str], threading.Event]]:
    if kind == "released":
        yield {}, threading.Event()
        return
    applied = Slow(client)
    with served(DockerProvider(applied)) as address:
        yield {"PULUMI_DEBUG_PROVIDERS": address}, applied.late


@pytest.mark.parametrize(
    "kind",
    [
        "stand-in",
        pytest.param("released", marks=pytest.mark.skipif(not RELEASED, reason="no pulumi-resource-docker on PATH")),
    ],
)
def test_a_first_up_that_is_killed_at_any_moment_is_finished_by_the_next(kind: str) -> None:
    client, env = docker.from_env(), f"kill{secrets.token_hex(3)}"
    left = Containers(client, env)
    with plugin(kind, client) as (variables, late), tempfile.TemporaryDirectory(prefix="plinth-docker-") as directory:
        project = Environment(Path(directory), settings(built.build(client), **OTHERS), env, **variables)
        try:
            for moment in MOMENTS:
                kill_when_there(project, client, f"plinth-{env}{moment}")
            late.set()
            said = project.up()
            assert kind == "released" or "removed what an earlier run left unfinished" in said
            project.wait_ready()
            assert set(left.running()) == {"qdrant-0", "redis"}
            assert "nothing to change" in project.up()
            project.plinth("down", env, "--yes")
            assert left.client.containers.list(all=True, filters={"label": f"plinth.stack={env}"}) == []
            assert left.client.networks.list(filters={"label": f"plinth.stack={env}"}) == []
        finally:
            left.remove()


def kill_when_there(project: Environment, client: docker.DockerClient, name: str) -> None:
    """Run `up` and kill it, with the engine and all, as soon as a network or container of this name is there."""
    known = ids(client, name)
    running = subprocess.Popen(
        [sys.executable, "-c", "from plinth.cli import main; main()", "up", project.env, "--no-verify"],
        cwd=project.root,
        env=project.surroundings(),
        stdin=subprocess.DEVNULL,
        stdout=(project.root / "killed.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    while running.poll() is None and not ids(client, name) - known:
        time.sleep(0.02)
    assert running.poll() is None, f"{name} was never seen: {(project.root / 'killed.log').read_text()}"
    # The engine and its plugins too, as when the machine fails: they run in a session of their own.
    for process in (*psutil.Process(running.pid).children(recursive=True), psutil.Process(running.pid)):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    running.wait()


def ids(client: docker.DockerClient, name: str) -> set[str]:
    """Of the networks and containers of a name."""
    api = client.api
    containers = api.containers(all=True, filters={"name": f"^/{name}$"})
    return {found["Id"] for found in (*containers, *api.networks(names=[f"^{name}$"]))}
