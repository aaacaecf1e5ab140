"""Three real Qdrant nodes in containers: founding, restarts in any order, a rolling change under reads, growth."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import grpc
import httpx
import pytest

from plinth.paths import home
from plinth.qdrant.client import Qdrant
from plinth.qdrant.cluster import unsettled
from plinth.qdrant.cluster_observer import observe_others
from plinth.resources.certificate import kept_authority
from plinth.system.tls import issue, trusting
from tests.conftest import real_qdrant
from tests.containers import built
from tests.containers.applied import needs_containers, provided
from tests.containers.engine import Containers
from tests.containers.stack import settings
from tests.project import Environment, needs_pulumi

pytestmark = [
    pytest.mark.engine,
    pytest.mark.docker,
    pytest.mark.qdrant,
    needs_pulumi,
    needs_containers,
    pytest.mark.skipif(real_qdrant() is None, reason="no qdrant binary: the embedded engine is one node"),
]
NODES, POINTS = 3, 200
COLLECTION = "trades"


@dataclass(frozen=True)
class Nodes:
    """Where the nodes are, and how to get in."""

    urls: list[str]
    key: str
    ca_cert: str | None

    def count(self, url: str) -> int:
        path = f"{url}/collections/{COLLECTION}/points/count"
        with httpx.Client(verify=trusting(self.ca_cert), headers={"api-key": self.key}, timeout=30) as client:
            return int(client.post(path, json={"exact": True}).json()["result"]["count"])


class Cluster(Environment):
    """A cluster and its containers."""

    containers: Containers

    def nodes(self) -> Nodes:
        where = self.outputs()["qdrant"]
        return Nodes(list(where["nodes"].values()), where["api_key"], where.get("ca_cert"))

    def wait_settled(self, seconds: float = 120) -> None:
        nodes = self.nodes()
        urls, end = nodes.urls, time.monotonic() + seconds
        while True:
            views = observe_others(urls, nodes.key, 5, nodes.ca_cert)
            lacks = "not every node answers"
            if len(views) == len(urls):
                verdicts = [unsettled(view, views, len(urls)) for view in views]
                lacks = next((verdict for verdict in verdicts if verdict), "")
                if not lacks:
                    return
            assert time.monotonic() < end, lacks
            time.sleep(0.5)

    def counts(self) -> list[int]:
        """The exact number of points by each node's word."""
        nodes = self.nodes()
        return [nodes.count(url) for url in nodes.urls]

    def qdrant(self) -> Qdrant:
        nodes = self.nodes()
        return Qdrant(nodes.urls[0], nodes.key, ca_cert=nodes.ca_cert)

    def stand_up(self) -> Any:
        """Deploy it and fill it; what status says of it."""
        self.up()
        status = self.json("status", self.env)
        assert status["ready"] is True
        assert [peer["peer"] for peer in status["cluster"]] == [f"qdrant-{number}.peers" for number in range(NODES)]
        assert [peer["leader"] for peer in status["cluster"]].count(True) == 1
        assert all(peer["replicas"] > 0 and not peer["not_active"] for peer in status["cluster"])
        with self.qdrant() as qdrant:
            points = [
                {"id": n, "vector": [n / POINTS] * 768, "payload": {"user_id": "u"}} for n in range(1, POINTS + 1)
            ]
            qdrant.call("PUT", f"/collections/{COLLECTION}/points?wait=true", {"points": points})
        assert self.counts() == [POINTS] * NODES
        return status

    def start_again(self, *order: str) -> None:
        """Stop every node, then start them in an order of their own."""
        running = self.containers.running()
        for node in running.values():
            node.stop(timeout=30)
        for name in order:
            running[name].start()
        self.wait_settled()
        assert self.counts() == [POINTS] * NODES


@contextlib.contextmanager
def three(**qdrant: Any) -> Iterator[Cluster]:
    """A project of three nodes, not yet deployed; nothing of it is left behind."""
    client = docker.from_env()
    env = f"three{secrets.token_hex(3)}"
    off = {"enabled": False}
    wanted = settings(
        built.build(client),
        NODES,
        postgres=off,
        redis=off,
        backup=off,
        monitoring={"prometheus": off, "alertmanager": off, "grafana": off, "exporters": off},
        collections={"only": [COLLECTION]},
    )
    wanted["plinth:qdrant"] |= qdrant
    with provided(client) as plugin, tempfile.TemporaryDirectory(prefix="plinth-") as directory:
        made = Cluster(Path(directory), wanted, env, **plugin)
        made.containers = Containers(client, env)
        try:
            yield made
        finally:
            made.containers.remove()


@pytest.mark.requirement("S1-03")
@pytest.mark.requirement("S1-14")
def test_without_tls_three_nodes_found_a_cluster_that_starts_again_and_whose_peers_ask_for_the_key() -> None:
    with three() as plain:
        plain.stand_up()
        where = plain.outputs()["qdrant"]
        assert {url.partition(":")[0] for url in [where["url"], *where["nodes"].values()]} == {"http"}
        assert httpx.get(f"{where['url']}/collections", timeout=10).status_code == 401
        about = plain.containers.inspected()["qdrant-1"]
        assert not about["NetworkSettings"]["Ports"].get("6335/tcp")
        for network in about["NetworkSettings"]["Networks"].values():
            with grpc.insecure_channel(f"{network['IPAddress']}:6335") as channel:
                assert refusal(channel).code() == grpc.StatusCode.UNAUTHENTICATED
        plain.start_again("qdrant-1", "qdrant-2", "qdrant-0")


def refusal(channel: grpc.Channel) -> grpc.RpcError:
    """How a peer answers one who has no key."""
    ask = channel.unary_unary("/qdrant.QdrantInternal/GetConsensusCommit")
    with pytest.raises(grpc.RpcError) as refused:
        ask(b"", timeout=10)
    return refused.value


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with three(tls={}) as made:
        yield made


@pytest.mark.requirement("S1-03")
def test_three_nodes_found_one_cluster_and_status_shows_its_peers(cluster: Cluster) -> None:
    assert {"qdrant", "qdrant-1", "qdrant-2"} <= set(cluster.stand_up()["deps"])


@pytest.mark.requirement("S1-14")
def test_the_peers_port_is_published_nowhere_and_asks_for_the_key(cluster: Cluster) -> None:
    about = cluster.containers.inspected()["qdrant-0"]
    assert not about["NetworkSettings"]["Ports"].get("6335/tcp")
    networks = about["NetworkSettings"]["Networks"]
    assert set(networks) == {f"plinth-{cluster.env}", f"plinth-{cluster.env}-qdrant-peers"}
    assert cluster.containers.client.networks.get(f"plinth-{cluster.env}-qdrant-peers").attrs["Internal"] is True
    # Qdrant listens on every network that it is in, so whoever gets as far as the port must be turned away there:
    # without a certificate by TLS, and with one for want of the key.
    authority = kept_authority(home(cluster.root, cluster.env).data / "tls", "unused")
    pair = issue(authority, "peer", ["peer"])
    ca, key, cert = (text.encode() for text in (authority.cert, pair.key, pair.cert))
    anyone, peer = grpc.ssl_channel_credentials(ca), grpc.ssl_channel_credentials(ca, key, cert)
    names = (("grpc.ssl_target_name_override", "qdrant-0.peers"),)
    for network in networks.values():
        for credentials, code in ((anyone, grpc.StatusCode.UNAVAILABLE), (peer, grpc.StatusCode.UNAUTHENTICATED)):
            with grpc.secure_channel(f"{network['IPAddress']}:6335", credentials, names) as channel:
                refused = refusal(channel)
            assert refused.code() == code, refused


@pytest.mark.requirement("S1-07")
def test_every_port_speaks_tls_and_nothing_else(cluster: Cluster) -> None:
    where = cluster.outputs()["qdrant"]
    assert {url.partition(":")[0] for url in [where["url"], where["grpc_url"], *where["nodes"].values()]} == {"https"}
    for url in (where["url"], where["grpc_url"]):
        plain = url.replace("https", "http")
        with pytest.raises(httpx.HTTPError):
            httpx.get(plain, timeout=5)
        host, _, port = plain.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), 5) as raw:
            secured = trusting(where["ca_cert"]).wrap_socket(raw, server_hostname=host)
            assert secured.version() in ("TLSv1.2", "TLSv1.3")
    key = json.loads((home(cluster.root, cluster.env).data / "tls" / "authority.json").read_text())["key"]
    assert key.splitlines()[1] not in cluster.states() + json.dumps(cluster.containers.inspected())


def test_nodes_start_again_in_any_order(cluster: Cluster) -> None:
    cluster.start_again("qdrant-2", "qdrant-0", "qdrant-1")


def test_the_founder_killed_comes_back_into_the_cluster(cluster: Cluster) -> None:
    os.kill(cluster.containers.pid("qdrant-0"), signal.SIGKILL)
    cluster.wait_settled()
    assert cluster.counts() == [POINTS] * NODES


class Reader(threading.Thread):
    """Counts on the nodes in turn until one answers; a wrong count, or none at all, is kept."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(daemon=True)
        self.nodes = nodes
        self.wrong: list[int | None] = []
        self.reads = 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.2):
            self.reads += 1
            found = self.read()
            if found != POINTS:
                self.wrong.append(found)

    def read(self) -> int | None:
        for url in self.nodes.urls:
            with contextlib.suppress(httpx.HTTPError, KeyError, TypeError, ValueError):
                return self.nodes.count(url)
        return None


def roll(cluster: Cluster) -> None:
    """Have a change of the settings go through every node; no read fails meanwhile."""
    before = {name: container.id for name, container in cluster.containers.running().items()}
    reader = Reader(cluster.nodes())
    reader.start()
    cluster.save()
    cluster.up()
    reader.done.set()
    reader.join()
    after = {name: container.id for name, container in cluster.containers.running().items()}
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    assert reader.reads > 10
    assert reader.wrong == []
    cluster.wait_settled()


def test_a_change_rolls_through_the_nodes_and_no_read_fails(cluster: Cluster) -> None:
    cluster.settings["plinth:qdrant"]["flush_interval_sec"] = 4
    roll(cluster)


def test_another_image_rolls_through_the_nodes_and_no_read_fails(cluster: Cluster) -> None:
    images = cluster.settings["plinth:docker"]["images"]
    other = f"{images['qdrant']}-patched"
    recipe = f"FROM {images['qdrant']}\nLABEL patched=yes\n"
    cluster.containers.client.images.build(fileobj=io.BytesIO(recipe.encode()), tag=other, rm=True)
    images["qdrant"] = other
    roll(cluster)


def test_a_node_added_to_the_settings_is_a_peer_more(cluster: Cluster) -> None:
    cluster.settings["plinth:qdrant"]["nodes"] = NODES + 1
    cluster.save()
    cluster.up()
    assert len(cluster.json("status", cluster.env)["cluster"]) == NODES + 1
    assert cluster.counts() == [POINTS] * (NODES + 1)


def test_a_node_leaves_only_once_it_is_no_peer_any_more(cluster: Cluster) -> None:
    cluster.settings["plinth:qdrant"]["nodes"] = NODES
    cluster.save()
    said = cluster.up(expect=1)
    assert f"plinth:qdrant.nodes goes from {NODES + 1} to {NODES}. Node qdrant-{NODES}.peers still" in said
    assert f"qdrant-{NODES}" in cluster.containers.running()
    peers = cluster.json("status", cluster.env)["cluster"]
    leaving = next(peer["id"] for peer in peers if peer["peer"] == f"qdrant-{NODES}.peers")
    with cluster.qdrant() as qdrant:
        qdrant.call("DELETE", f"/cluster/peer/{leaving}")
    cluster.up()
    assert set(cluster.containers.running()) == {f"qdrant-{number}" for number in range(NODES)}
    cluster.wait_settled()


def test_the_cluster_is_the_same_after_a_down(cluster: Cluster) -> None:
    peers = {peer["id"] for peer in cluster.json("status", cluster.env)["cluster"]}
    cluster.plinth("down", cluster.env, "--yes")
    assert cluster.containers.running() == {}
    cluster.up()
    assert {peer["id"] for peer in cluster.json("status", cluster.env)["cluster"]} == peers
    assert cluster.counts() == [POINTS] * NODES
