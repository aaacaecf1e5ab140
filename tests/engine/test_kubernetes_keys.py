"""Another API key and another password by `up` on kubernetes: no node, gate or client is ever shut out on the way.

The pods are remembered ones that take their environment from the Secrets when they start, as the kubelet would have it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from plinth.qdrant.key_rotation import Keys
from tests.conftest import free_port
from tests.kubernetes.story import OFF, Story, story_of
from tests.project import needs_pulumi

pytestmark = [
    pytest.mark.engine,
    needs_pulumi,
]
NODES = 3
REDIS = shutil.which("redis-server")
PODS = [f"qdrant-{number}" for number in range(NODES)]


class Redis:
    """What runs in the pod of Redis: a real server, started anew with the password of the Secret."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory, free_port()
        self.process: subprocess.Popen[str] | None = None

    def start(self, password: str) -> None:
        assert REDIS is not None
        self.stop()
        command = [REDIS, "-"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert self.process.stdin is not None
        self.process.stdin.write(f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\nrequirepass {password}\n")
        self.process.stdin.close()

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(30)

    def ping(self, password: str) -> bool:
        with redis.Redis(port=self.port, password=password) as client:
            return bool(client.ping())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    made = Redis(tmp_path_factory.mktemp("redis"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, server: Redis) -> Iterator[Story]:
    root, kubeconfig = tmp_path_factory.mktemp("keys"), tmp_path_factory.mktemp("kube") / "config"
    wanted = {"plinth:redis": {"password": "first"}} if REDIS else {}
    with story_of(root, kubeconfig, NODES, wanted, {("redis-0", 6379): server.port}) as story:
        story.set(api_key="old")
        story.nodes.takes = lambda number, key: keys(story.store.environment[PODS[number]]).takes(key)
        yield story


def keys(environment: dict[str, str]) -> Keys:
    """What a pod of Qdrant shows, and takes beside it."""
    return Keys(environment["QDRANT__SERVICE__API_KEY"], environment.get("QDRANT__SERVICE__ALT_API_KEY"))


def test_the_pods_start_with_the_key_of_the_settings(story: Story, server: Redis) -> None:
    store = story.store
    store.on_start = lambda pod: server.start(store.environment[pod]["REDIS_PASSWORD"]) if pod == "redis-0" else None
    story.up()
    assert [keys(story.store.environment[pod]) for pod in PODS] == [Keys("old")] * NODES
    # Else the tests below would prove nothing: whoever shows another key is turned away.
    assert not story.nodes.takes(0, "new")


@pytest.mark.requirement("S1-03")
def test_another_key_goes_through_the_pods_and_nobody_is_ever_refused(story: Story) -> None:
    moments: list[list[Keys]] = []

    def look(*_of: str) -> None:
        """As it stands, and as it would stand if any one pod had just started again by itself."""
        now = {pod: keys(story.store.environment[pod]) for pod in PODS}
        moments.append(list(now.values()))
        moments.extend([*({**now, pod: keys(story.store.resolved(pod))}.values())] for pod in PODS)

    starts = story.store.on_start
    story.store.on_put = story.store.on_start = look
    before = len(story.store.calls)
    story.set(api_key="new")
    said = story.up()
    story.store.on_put, story.store.on_start = (lambda kind, name: None), starts
    assert [keys(story.store.environment[pod]) for pod in PODS] == [Keys("new")] * NODES
    assert [name for _, _, name in story.since(before, "restart")] == [*reversed(PODS)] * 3
    assert moments
    for now in moments:
        assert all(one.takes(other.key) for one in now for other in now), now
        # An application has a key that every node takes, and a time in which both are taken everywhere.
        assert any(all(node.takes(key) for node in now) for key in ("old", "new")), now
    assert any(all(node.takes("old") and node.takes("new") for node in now) for now in moments)
    assert story.nodes.refused == []
    assert "letting both in" in said
    assert "the old one is let in no more" in said


@pytest.mark.requirement("S1-14")
def test_the_old_key_opens_nothing_any_more(story: Story) -> None:
    assert not any(story.nodes.takes(number, "old") for number in range(NODES))
    assert story.store.of("Secret")["qdrant-keys"]["stringData"]["api-key"] == "new"
    assert "alt-api-key" not in story.store.of("Secret")["qdrant-keys"]["stringData"]
    assert story.environment.outputs()["qdrant"]["api_key"] == "new"


@pytest.mark.skipif(REDIS is None, reason="no redis-server")
def test_a_preview_with_a_secret_that_is_only_to_be_generated_removes_nothing(story: Story) -> None:
    """The exporter's password comes into the Secret of Redis, and so the mark of it onto its pods."""
    parts = ("prometheus", "alertmanager", "exporters")
    story.set("monitoring", **{key: {"enabled": True} for key in parts})
    before = len(story.store.calls)
    said = story.environment.plinth("preview", "t")
    story.set("monitoring", **dict.fromkeys(parts, OFF))
    assert re.search(r"~ redis:vectors/redis +changing", said)
    assert "stopping" not in said
    assert story.since(before) == []


@pytest.mark.skipif(REDIS is None, reason="no redis-server")
def test_another_password_starts_the_pod_that_reads_it(story: Story, server: Redis) -> None:
    before = len(story.store.calls)
    assert server.ping("first")
    story.set("redis", password="second")
    story.up()
    assert server.ping("second")
    with pytest.raises(redis.AuthenticationError):
        server.ping("first")
    assert [name for _, _, name in story.since(before, "restart")] == ["redis-0"]
