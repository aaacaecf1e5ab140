"""How a cluster of the chart is founded: the script of its pods, with a stand-in for qdrant and with the real one.

Every node has a loopback address of its own, 127.0.0.10 and on, where a pod has its name.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT, free_port, real_qdrant
from tests.waiting import wait_for

SCRIPT = ROOT / "charts/qdrant/files/start.sh"
HOSTS = "127.0.0.1%s"
JOINED = {"state": {"hard_state": {"term": 3, "vote": 1, "commit": 9}, "conf_state": {"voters": [1, 2]}}}
ALONE = {"state": {"hard_state": {"term": 0, "vote": 0, "commit": 0}, "conf_state": {"voters": [1]}}}
REFUSED = {"state": {"hard_state": {"term": 0, "vote": 0, "commit": 0}, "conf_state": {"voters": []}}}
# Says how it was started, and listens as a peer does.
STAND_IN = """#!/usr/bin/env bash
printf '%s\\n' "$*" >"$PLINTH_STORAGE/started"
exec perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new(LocalAddr => $ARGV[0], LocalPort => $ARGV[1], Listen => 8, ReuseAddr => 1) or die $!;
  while (my $c = $s->accept) { close $c }' "$PLINTH_LISTEN" "$PLINTH_PEER_PORT"
"""


class Nodes:
    """Pods of a StatefulSet, as far as the script can tell."""

    def __init__(self, directory: Path, qdrant: Path, **environment: str) -> None:
        self.directory, self.qdrant, self.environment = directory, qdrant, environment
        self.peer_port, self.founding_port = free_port(), free_port()
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.scale(3)

    def scale(self, nodes: int) -> None:
        (self.directory / "nodes").write_text(str(nodes))

    def storage(self, node: int) -> Path:
        path = self.directory / f"storage{node}"
        path.mkdir(exist_ok=True)
        return path

    def record(self, node: int, record: dict[str, Any]) -> None:
        # The engine writes no spaces.
        (self.storage(node) / "raft_state.json").write_text(json.dumps(record, separators=(",", ":")))

    def given(self, node: int, founding: str = "auto") -> dict[str, str]:
        """A pod's environment."""
        return {
            "POD_NAME": f"qdrant-{node}",
            "PLINTH_HOSTS": HOSTS,
            "PLINTH_SCHEME": "http",
            "PLINTH_FOUNDING": founding,
            "PLINTH_STORAGE": str(self.storage(node)),
            "PLINTH_NODES_FILE": str(self.directory / "nodes"),
            "PLINTH_QDRANT": str(self.qdrant),
            "PLINTH_LISTEN": HOSTS % node,
            "PLINTH_PEER_PORT": str(self.peer_port),
            "PLINTH_FOUNDING_PORT": str(self.founding_port),
            **self.environment,
        }

    def start(self, *nodes: int, founding: str = "auto", **environment: str) -> None:
        for node in nodes:
            with (self.directory / f"log{node}").open("ab") as log:
                self.running[node] = subprocess.Popen(
                    ["bash", str(SCRIPT), "--config-path", "c"],
                    env={**os.environ, **self.given(node, founding), **environment},
                    cwd=self.storage(node),
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def started(self, node: int) -> str | None:
        path = self.storage(node) / "started"
        return path.read_text().strip() if path.exists() else None

    def wait(self, node: int) -> str:
        wait_for(lambda: self.started(node) is not None, lambda: self.log(node))
        return self.started(node) or ""

    def wait_said(self, node: int, words: str) -> None:
        wait_for(lambda: words in self.log(node), lambda: self.log(node))

    def log(self, node: int) -> str:
        return (self.directory / f"log{node}").read_text()

    def uri(self, node: int) -> str:
        return f"http://{HOSTS % node}:{self.peer_port}"

    def stop(self, node: int, with_signal: int = signal.SIGTERM) -> int:
        process = self.running.pop(node)
        process.send_signal(with_signal)
        return process.wait(timeout=30)

    def close(self) -> None:
        for process in self.running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def revive(self) -> None:
        """Start again what has ended, as a pod does."""
        for node in [node for node, process in self.running.items() if process.poll() is not None]:
            self.start(node)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    qdrant = tmp_path / "qdrant"
    qdrant.write_text(STAND_IN)
    qdrant.chmod(0o755)
    made = Nodes(tmp_path, qdrant)
    yield made
    made.close()


def test_empty_nodes_found_one_cluster(nodes: Nodes) -> None:
    nodes.start(0, 1, 2)
    assert nodes.wait(0) == f"--config-path c --uri {nodes.uri(0)}"
    for node in (1, 2):
        assert nodes.wait(node).startswith("--config-path c --bootstrap http://")
        assert nodes.wait(node).endswith(f" --uri {nodes.uri(node)}")


def test_node_0_waits_for_a_node_that_says_nothing(nodes: Nodes) -> None:
    """It may be loading what the cluster holds, or have no machine yet."""
    nodes.start(0, 1)
    nodes.wait_said(0, f"waiting for {HOSTS % 2} to answer")
    assert nodes.started(0) is None
    nodes.start(2)
    assert nodes.wait(0) == f"--config-path c --uri {nodes.uri(0)}"


def test_an_empty_node_0_joins_who_answers(nodes: Nodes) -> None:
    nodes.record(1, JOINED)
    nodes.start(1)
    assert nodes.wait(1) == f"--config-path c --uri {nodes.uri(1)}"
    nodes.start(0)
    assert nodes.wait(0) == f"--config-path c --bootstrap {nodes.uri(1)} --uri {nodes.uri(0)}"


def test_an_empty_node_0_waits_for_a_cluster_that_is_slow_to_load(nodes: Nodes) -> None:
    """Nodes with a record that do not answer yet never say that they are empty, so no second cluster is founded."""
    nodes.start(0, 2)
    nodes.wait_said(0, f"waiting for {HOSTS % 1} to answer")
    assert nodes.started(0) is None
    nodes.record(1, JOINED)
    nodes.start(1)
    assert "--bootstrap" in nodes.wait(0)


def test_nodes_with_a_record_start_in_any_order_and_alone(nodes: Nodes) -> None:
    for node in range(3):
        nodes.record(node, JOINED)
    nodes.start(2)
    assert nodes.wait(2) == f"--config-path c --uri {nodes.uri(2)}"
    nodes.start(0)
    assert nodes.wait(0) == f"--config-path c --uri {nodes.uri(0)}"


def test_founding_can_be_forbidden(nodes: Nodes) -> None:
    nodes.start(0, 1, 2, founding="never")
    nodes.wait_said(0, "may not found a cluster")
    assert [nodes.started(node) for node in range(3)] == [None, None, None]
    assert nodes.stop(0) == 143


def test_a_single_node_that_gets_others_keeps_its_collections(nodes: Nodes) -> None:
    nodes.record(0, ALONE)
    (nodes.storage(0) / "collections/c").mkdir(parents=True)
    (nodes.storage(0) / "collections/c/config.json").touch()
    nodes.start(0)
    assert nodes.wait(0) == f"--config-path c --uri {nodes.uri(0)}"
    assert (nodes.storage(0) / "raft_state.json").exists()


def test_a_node_more_joins_by_any_node(nodes: Nodes) -> None:
    nodes.scale(4)
    nodes.record(2, JOINED)
    nodes.start(2, 3)
    assert nodes.wait(3) == f"--config-path c --bootstrap {nodes.uri(2)} --uri {nodes.uri(3)}"


@pytest.mark.parametrize(("record", "kept"), [(REFUSED, True), (ALONE, False)])
def test_a_joiner_drops_the_record_of_one_that_was_to_found(nodes: Nodes, record: dict[str, Any], kept: bool) -> None:
    nodes.record(0, record)
    nodes.record(1, JOINED)
    nodes.start(0, 1)
    assert "--bootstrap" in nodes.wait(0)
    assert (nodes.storage(0) / "raft_state.json").exists() is kept


def test_a_founder_drops_the_record_of_a_join_that_failed(nodes: Nodes) -> None:
    nodes.record(0, REFUSED)
    nodes.start(0, 1, 2)
    assert "--bootstrap" not in nodes.wait(0)
    assert not (nodes.storage(0) / "raft_state.json").exists()


def test_without_a_number_of_nodes_nothing_is_founded(nodes: Nodes) -> None:
    (nodes.directory / "nodes").unlink()
    nodes.start(0)
    assert nodes.running[0].wait(timeout=30) != 0
    assert nodes.started(0) is None


def test_it_becomes_qdrant_and_leaves_nobody_behind(nodes: Nodes) -> None:
    nodes.record(1, JOINED)
    nodes.start(2)
    nodes.wait_said(2, "waiting")
    nodes.start(1)
    nodes.wait(2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOSTS % 2, nodes.founding_port), timeout=10)
    running = Path(f"/proc/{nodes.running[2].pid}/cmdline")
    # The script is gone: the process that hears the stop signal is the server itself.
    wait_for(lambda: "start.sh" not in running.read_text(), running.read_text)
    assert nodes.stop(2) == -signal.SIGTERM


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Nodes]:
    qdrant = tmp_path / "qdrant"
    http = free_port()
    grpc = free_port()
    # The stand-in for the image: each pod has an address of its own.
    qdrant.write_text(f'#!/bin/sh\nshift 2\nexport QDRANT__SERVICE__HOST=$PLINTH_LISTEN\nexec {real_qdrant()} "$@"\n')
    qdrant.chmod(0o755)
    made = Nodes(
        tmp_path,
        qdrant,
        QDRANT__SERVICE__HTTP_PORT=str(http),
        QDRANT__SERVICE__GRPC_PORT=str(grpc),
        QDRANT__CLUSTER__ENABLED="true",
        QDRANT__TELEMETRY_DISABLED="true",
        QDRANT__STORAGE__STORAGE_PATH=".",
        QDRANT__STORAGE__SNAPSHOTS_PATH="./snapshots",
        QDRANT_INIT_FILE_PATH="./.qdrant-initialized",
    )
    made.environment["QDRANT__CLUSTER__P2P__PORT"] = str(made.peer_port)
    yield made
    made.close()


def peers(nodes: Nodes, node: int) -> set[str] | None:
    """Whom a node knows; None until it has a vote, for a cluster that loses its only voter has no way back."""
    port = nodes.environment["QDRANT__SERVICE__HTTP_PORT"]
    try:
        found = httpx.get(f"http://{HOSTS % node}:{port}/cluster", timeout=5).json()["result"]
    except httpx.HTTPError:
        return None
    if not (found["raft_info"]["is_voter"] and found["raft_info"]["leader"]):
        return None
    return {peer["uri"].rstrip("/") for peer in found["peers"].values()}


@pytest.mark.qdrant
@pytest.mark.skipif(real_qdrant() is None, reason="no qdrant binary: set PLINTH_QDRANT or put it on PATH")
def test_real_nodes_found_one_cluster_and_an_emptied_node_0_returns_to_it(real: Nodes) -> None:
    def together() -> bool:
        real.revive()
        return all(peers(real, node) == {real.uri(0), real.uri(1), real.uri(2)} for node in range(3))

    def why() -> str:
        return "".join(real.log(node)[-1500:] for node in range(3)) + str([peers(real, node) for node in range(3)])

    real.start(0, 1, 2)
    wait_for(together, why)
    real.stop(0)
    for path in sorted(real.storage(0).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    real.start(0)
    wait_for(together, why)
    assert "Joining by" in real.log(0)
    for node in range(3):
        real.stop(node)
    real.start(0, 1, 2)
    wait_for(together, why)
