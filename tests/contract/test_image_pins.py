"""Images by digest, on a real engine with a real registry on loopback."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest
import yaml

from plinth.targets.docker.engine_api import Daemon
from plinth.targets.images import by_digest, pins
from tests.conftest import ROOT, free_port
from tests.containers.engine import why_not
from tests.project import Environment

REGISTRY_CONFIG = """version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(bool(why_not()), reason=str(why_not())),
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="no docker-registry: apt-get install it"),
]


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return docker.from_env()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory, port = tmp_path_factory.mktemp("registry"), free_port()
    config = directory / "config.yml"
    config.write_text(REGISTRY_CONFIG.format(directory=directory / "images", port=port))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    for _ in range(100):
        try:
            httpx.get(f"http://127.0.0.1:{port}/v2/", timeout=2, trust_env=False)
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait()


def push(client: docker.DockerClient, reference: str, content: bytes) -> None:
    """Put an image of one file into the registry under a tag, and leave none of it on the engine."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("content")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    name, _, tag = reference.rpartition(":")
    client.api.import_image_from_data(packed.getvalue(), repository=name, tag=tag)
    for line in client.api.push(name, tag=tag, stream=True, decode=True):
        assert "error" not in line, line
    client.images.remove(reference, force=True)


@pytest.fixture
def project(tmp_path: Path, registry: str) -> Environment:
    """A project whose images are all one of the registry's, but for its own."""
    project = Environment(tmp_path, {"plinth:target": "docker"})
    images = dict.fromkeys(pins(ROOT), f"{registry}/x:1") | {"plinth": pins(ROOT)["plinth"]}
    (tmp_path / "config" / "images.yaml").write_text(f"# Pinned.\n{yaml.safe_dump({'images': images})}")
    return project


def test_pinned_images_stay_the_same_when_their_tag_moves(
    client: docker.DockerClient, registry: str, project: Environment, tmp_path: Path
) -> None:
    push(client, f"{registry}/x:1", b"first")
    answer = project.plinth("images", "pin", "t")
    assert "digest(s) changed" in answer
    assert (tmp_path / "config" / "images.yaml").read_text().startswith("# Pinned.\n")
    pinned = pins(tmp_path)["redis"]
    assert pinned.startswith(f"{registry}/x:1@sha256:")
    assert "0 digest(s) changed" in project.plinth("images", "pin", "t")

    push(client, f"{registry}/x:1", b"second")
    with Daemon() as daemon:
        daemon.pull(daemon.local_name(pinned))
        assert daemon.has_image(by_digest(pinned))
    # What the pin names is still the first image; the tag is another one by now.
    assert by_digest(pinned) in client.images.get(by_digest(pinned)).attrs["RepoDigests"]
    project.plinth("images", "pin", "t")
    assert pins(tmp_path)["redis"] != pinned
    client.images.remove(by_digest(pinned), force=True)


def test_an_image_of_a_file_goes_by_its_tag_where_no_registry_is(
    client: docker.DockerClient, registry: str, tmp_path: Path
) -> None:
    push(client, f"{registry}/y:1", b"saved")
    with Daemon() as daemon:
        pinned = f"{registry}/y:1@{daemon.digest_of(f'{registry}/y:1')}"
        daemon.pull(daemon.local_name(pinned))
        daemon.tag(by_digest(pinned), pinned)
        daemon.save([f"{registry}/y:1"], tmp_path / "images.tar")
        client.images.remove(f"{registry}/y:1", force=True)
        if daemon.has_image(by_digest(pinned)):
            client.images.remove(by_digest(pinned), force=True)
        daemon.load(tmp_path / "images.tar")
        assert daemon.local_name(pinned) == f"{registry}/y:1"
        assert daemon.has_image(daemon.local_name(pinned))
    client.images.remove(f"{registry}/y:1", force=True)
