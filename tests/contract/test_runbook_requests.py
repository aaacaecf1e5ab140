"""What runbooks have people ask of Qdrant, typed as it stands: at a real cluster, and at a server of an own signer."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plinth.qdrant.client import Qdrant, QdrantError
from plinth.system.tls import issue, make_authority
from tests.cluster import Cluster
from tests.conftest import KEY, READ_ONLY_KEY, free_port, real_qdrant
from tests.runbooks import shown, typed
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.qdrant,
    pytest.mark.skipif(real_qdrant() is None, reason="no qdrant binary: set PLINTH_QDRANT or put it on PATH"),
]
COLLECTION = "c_v1"
NEW_REPLICA = '{"replicate_shard": {"shard_id": SHARD, "from_peer_id": FROM_ID, "to_peer_id": TO_ID}}'
REQUESTS = shown(r"(?:NODE=\S+ )?q ")


class Desk:
    """Where somebody on call sits: a project whose environment is the servers of a test."""

    def __init__(self, project: Path, qdrant: dict[str, Any]) -> None:
        self.project = project
        command = project / ".venv" / "bin" / "plinth"
        command.parent.mkdir(parents=True)
        (project / "stacks").mkdir()
        (project / "Pulumi.yaml").touch()
        (project / "outputs.json").write_text(json.dumps({"qdrant": qdrant}))
        command.write_text('#!/bin/sh\n[ "$*" = "outputs t --json --show-secrets" ] && cat outputs.json\n')
        command.chmod(0o755)

    def type(self, *lines: str) -> str:
        return typed(self.project, *lines, collection=COLLECTION)


class Place:
    """A cluster, and a desk to look at it from."""

    def __init__(self, directory: Path) -> None:
        self.cluster = Cluster(directory / "nodes", 3)
        urls = {f"qdrant-{number}": server.url for number, server in enumerate(self.cluster.servers)}
        known = {"url": urls["qdrant-0"], "api_key": KEY, "read_only_api_key": READ_ONLY_KEY, "nodes": urls}
        self.desk = Desk(directory / "desk", known)
        self.node = self.cluster.nodes[0]
        self.peers = [int(node.call("GET", "/cluster")["peer_id"]) for node in self.cluster.nodes]
        fill(self.node, shard_number=3, replication_factor=2)

    def replicas(self) -> dict[int, dict[int, str]]:
        """The state of each replica, by shard and peer."""
        found = self.node.call("GET", f"/collections/{COLLECTION}/cluster")
        every = [(found["peer_id"], shard) for shard in found["local_shards"]]
        every += [(shard["peer_id"], shard) for shard in found["remote_shards"]]
        states: dict[int, dict[int, str]] = {}
        for peer, shard in every:
            states.setdefault(shard["shard_id"], {})[peer] = shard["state"]
        return states

    def transfers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.node.call("GET", f"/collections/{COLLECTION}/cluster")["shard_transfers"]
        return found


def fill(node: Qdrant, **params: int) -> None:
    node.call("PUT", f"/collections/{COLLECTION}", {"vectors": {"size": 4, "distance": "Dot"}, **params})
    points = [{"id": n, "vector": [float(n)] * 4} for n in range(1, 101)]
    node.call("PUT", f"/collections/{COLLECTION}/points?wait=true", {"points": points})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("on-call"))
    yield made
    made.cluster.stop()


def line(word: str, **ids: object) -> str:
    """The line that has a word in it, with its ids filled in."""
    (found,) = {line for line in REQUESTS if word in line}
    for name, value in ids.items():
        assert name in found, found
        found = found.replace(name, str(value))
    return found


def has_ids(text: str) -> bool:
    return any(word in text for word in ("_ID", "SHARD", "NAME"))


def test_each_is_typed_below() -> None:
    with_ids = {text for text in REQUESTS if has_ids(text)}
    below = (NEW_REPLICA, "abort_transfer", "stream_records", "/cluster/peer/", "snapshots/NAME")
    assert with_ids == {line(word) for word in below}


def test_what_a_runbook_asks_can_be_typed_as_it_stands(place: Place) -> None:
    plain = sorted(text for text in REQUESTS if not has_ids(text))
    assert len(plain) > 7
    said = place.desk.type(*plain)
    assert "all shards are ready" in said
    assert '"raft_info"' in said
    assert "there is no node 'qdrant-7'" in place.desk.type("NODE=qdrant-7 q /cluster 2>&1 || true")
    for number, peer in enumerate(place.peers):
        assert f'"peer_id":{peer},' in place.desk.type(f"NODE=qdrant-{number} q /cluster")


def test_a_snapshot_is_deleted_by_its_name(place: Place) -> None:
    made = place.node.call("POST", f"/collections/{COLLECTION}/snapshots?wait=true")["name"]
    assert made in place.desk.type("q /collections/$C/snapshots")
    place.desk.type(line("snapshots/NAME", NAME=made))
    assert place.node.call("GET", f"/collections/{COLLECTION}/snapshots") == []


def test_a_transfer_that_hangs_is_aborted_and_started_again(place: Place) -> None:
    shard, holders = next(iter(place.replicas().items()))
    (to,) = set(place.peers) - set(holders)
    # A peer that takes nothing: it is not gone, and answers nobody.
    process = place.cluster.servers[place.peers.index(to)].process
    assert process
    process.send_signal(signal.SIGSTOP)
    ids = {"SHARD": shard, "FROM_ID": min(holders), "TO_ID": to}
    try:
        place.desk.type(line(NEW_REPLICA, **ids))
        wait_for(lambda: len(place.transfers()) == 1)
        place.desk.type(line("abort_transfer", **ids))
        wait_for(lambda: place.transfers() == [])
        place.desk.type(line("stream_records", **ids))
    finally:
        process.send_signal(signal.SIGCONT)
    wait_for(lambda: set(place.replicas()[shard].values()) == {"Active"})


@pytest.mark.requirement("S1-09")
def test_a_lost_node_is_removed_and_its_replicas_are_made_again(place: Place) -> None:
    lost = place.peers[2]
    place.cluster.servers[2].stop(signal.SIGKILL)
    place.desk.type(line("/cluster/peer/", OLD_ID=lost))
    wait_for(lambda: len(place.node.call("GET", "/cluster")["peers"]) == 2)
    alone = {shard: holders for shard, holders in place.replicas().items() if len(holders) == 1}
    assert alone
    for shard, (holder,) in alone.items():
        (to,) = set(place.peers) - {lost, holder}
        place.desk.type(line(NEW_REPLICA, SHARD=shard, FROM_ID=holder, TO_ID=to))
    wait_for(lambda: all(list(states.values()) == ["Active"] * 2 for states in place.replicas().values()))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The outputs of a server that speaks TLS alone, by a certificate of the environment's own signer."""
    directory, authority, port = tmp_path_factory.mktemp("tls"), make_authority("the environment's"), free_port()
    pair = issue(authority, "qdrant", ["127.0.0.1"])
    for name, text in (("cert.pem", pair.cert), ("key.pem", pair.key)):
        (directory / name).write_text(text)
    service = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "enable_tls": True}
    config = {
        "telemetry_disabled": True,
        "service": {**service, "api_key": KEY, "read_only_api_key": READ_ONLY_KEY},
        "tls": {"cert": str(directory / "cert.pem"), "key": str(directory / "key.pem")},
        "storage": {"storage_path": str(directory / "storage"), "snapshots_path": str(directory / "snapshots")},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    command = [str(real_qdrant()), "--config-path", str(directory / "config.yaml")]
    url = f"https://127.0.0.1:{port}"
    with (directory / "log").open("wb") as log, subprocess.Popen(command, cwd=directory, stdout=log, stderr=log) as run:
        try:
            with Qdrant(url, KEY, ca_cert=authority.cert) as client:
                wait_for(lambda: answers(client))
                fill(client)
            yield {"url": url, "api_key": KEY, "read_only_api_key": READ_ONLY_KEY, "ca_cert": authority.cert}
        finally:
            run.terminate()


def answers(client: Qdrant) -> bool:
    try:
        client.call("GET", "/collections")
    except QdrantError:
        return False
    return True


def test_requests_trust_the_environments_signer_and_no_other(signed: dict[str, Any], tmp_path: Path) -> None:
    plain = sorted(text for text in REQUESTS if not has_ids(text) and "NODE" not in text)
    said = Desk(tmp_path / "ours", signed).type(*plain)
    assert "all shards are ready" in said
    for ca_cert in (make_authority("another").cert, ""):
        other = Desk(tmp_path / f"other{len(ca_cert)}", signed | {"ca_cert": ca_cert})
        assert "certificate" in other.type("q /readyz 2>&1 && echo it answered || true")
        assert "it answered" not in other.type("q /readyz 2>&1 && echo it answered || true")
