"""What is asked of a cluster beside Pulumi, over HTTP: tunnels, refusals, growth, one pod after the other."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from plinth.errors import UserError
from plinth.kubernetes.client import Cluster
from plinth.kubernetes.port_forward import Forward, Route
from plinth.kubernetes.preflight import make_sure
from plinth.kubernetes.rolling_update import roll
from plinth.kubernetes.rolling_update_plan import Rolled
from plinth.kubernetes.volume_expansion import grow, plans
from plinth.kubernetes.volume_expansion_plan import GIB
from tests.conftest import free_port
from tests.kubernetes.api import Api, serving
from tests.kubernetes.provider import workload
from tests.kubernetes.store import Store
from tests.nodes import Nodes

NAMESPACE = "vectors"
SELECTOR = "app.kubernetes.io/name=qdrant"
ROLLED = Rolled(None, None, NAMESPACE, "qdrant", SELECTOR)
VALUES: dict[str, Any] = {
    "fullnameOverride": "qdrant",
    "replicas": 3,
    "config": {"version": 1},
    "updateStrategy": {"partition": 3},
    "persistence": {"storage": {"size": "10Gi"}},
}


@dataclass
class There:
    store: Store
    api: Api
    cluster: Cluster
    kubeconfig: Path

    def deploy(self, **values: Any) -> None:
        chart = {"name": "qdrant", "namespace": NAMESPACE}
        self.store.update(workload(chart, "qdrant", "node", VALUES | values, {}))


@pytest.fixture
def there(tmp_path: Path) -> Iterator[There]:
    store = Store()
    api = Api(store)
    with serving(api, tmp_path / "kubeconfig"):
        found = There(store, api, Cluster(str(tmp_path / "kubeconfig"), None, NAMESPACE), tmp_path / "kubeconfig")
        found.deploy()
        yield found


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    found = Nodes("qdrant-headless", [0] * 3)
    yield found
    found.close()


def test_a_tunnel_carries_what_is_asked_to_the_pod_of_its_labels(there: There, nodes: Nodes, tmp_path: Path) -> None:
    routes = []
    for number, port in enumerate(nodes.ports):
        there.api.ports[f"qdrant-{number}", 6333] = port
        labels = f"statefulset.kubernetes.io/pod-name=qdrant-{number}"
        routes.append(Route(free_port(), labels, 6333))
    Forward(there.cluster, routes, tmp_path / "marks").open()

    def ask(call: int) -> Any:
        return httpx.get(f"http://127.0.0.1:{routes[call % 3].local}/cluster", timeout=20).json()["result"]["peer_id"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(24))) == [1 + call % 3 for call in range(24)]


def test_a_tunnel_to_a_pod_that_is_not_there_is_closed_and_works_once_it_is(
    there: There, nodes: Nodes, tmp_path: Path
) -> None:
    route = Route(free_port(), SELECTOR, 6333)
    Forward(there.cluster, [route], tmp_path / "marks").open()
    url = f"http://127.0.0.1:{route.local}/cluster"
    with pytest.raises(httpx.HTTPError):
        httpx.get(url, timeout=20)
    there.api.ports |= {(f"qdrant-{number}", 6333): port for number, port in enumerate(nodes.ports)}
    assert httpx.get(url, timeout=20).status_code == 200


def test_a_large_body_comes_through_whole(there: There, nodes: Nodes, tmp_path: Path) -> None:
    there.api.ports |= {(f"qdrant-{number}", 6333): port for number, port in enumerate(nodes.ports)}
    nodes.payload = "x" * 3_000_000
    route = Route(free_port(), SELECTOR, 6333)
    Forward(there.cluster, [route], tmp_path / "marks").open()
    assert httpx.get(f"http://127.0.0.1:{route.local}/payload", timeout=20).json()["result"] == nodes.payload


def test_a_port_that_another_program_has_is_a_sentence(there: There, tmp_path: Path) -> None:
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]) as other:
        try:
            wait_listening(port)
            with pytest.raises(UserError, match=r"Port \d+ \(plinth:kubernetes.forward_offset\) is taken by python"):
                Forward(there.cluster, [Route(port, SELECTOR, 6333)], tmp_path / "marks").open()
        finally:
            other.terminate()


def wait_listening(port: int) -> None:
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


def test_two_commands_of_an_environment_share_their_ports(there: There, nodes: Nodes, tmp_path: Path) -> None:
    there.api.ports |= {(f"qdrant-{number}", 6333): port for number, port in enumerate(nodes.ports)}
    route = Route(free_port(), SELECTOR, 6333)
    for _ in range(2):
        Forward(there.cluster, [route], tmp_path / "marks").open()
        assert httpx.get(f"http://127.0.0.1:{route.local}/cluster", timeout=20).status_code == 200


@pytest.mark.parametrize(
    ("labels", "recorded", "words"),
    [
        ({"plinth.dev/stack": "prod"}, False, "belongs to the environment 'prod'"),
        ({"plinth.dev/stack": "prod"}, True, "belongs to the environment 'prod'"),
        ({}, False, "no environment of Plinth made it"),
    ],
)
def test_a_namespace_of_someone_else_is_a_sentence(
    there: There, labels: dict[str, str], recorded: bool, words: str
) -> None:
    there.store.create({"kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    with pytest.raises(UserError, match=words):
        make_sure(there.cluster, "staging", recorded=recorded)


@pytest.mark.parametrize("labels", [None, {"plinth.dev/stack": "staging"}])
def test_a_namespace_that_is_free_or_ours_will_do(there: There, labels: dict[str, str] | None) -> None:
    if labels is not None:
        there.store.create({"kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    make_sure(there.cluster, "staging", recorded=False)


def test_a_right_that_is_missing_is_named(there: There) -> None:
    there.store.denied = {"create pods/portforward", "patch statefulsets"}
    with pytest.raises(UserError, match="may not create pods/portforward, patch statefulsets in the namespace vectors"):
        make_sure(there.cluster, "staging", recorded=False)


def test_a_cluster_out_of_reach_is_a_sentence(there: There, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(there.kubeconfig.read_text().replace(there.cluster.server, "http://127.0.0.1:1"))
    with pytest.raises(UserError, match=r"cannot be reached .*plinth:kubernetes\.context"):
        make_sure(Cluster(str(other), None, NAMESPACE), "staging", recorded=False)


@pytest.mark.parametrize("context", [None, "nowhere"])
def test_no_kubeconfig_and_no_such_context_are_a_sentence(there: There, tmp_path: Path, context: str | None) -> None:
    path = there.kubeconfig if context else tmp_path / "none"
    with pytest.raises(UserError, match=r"No cluster is known .*KUBECONFIG"):
        Cluster(str(path), context, NAMESPACE)


def test_a_change_waits_at_each_pod_until_the_nodes_agree(there: There) -> None:
    lacking = iter([None, "1 shard transfer(s) are under way", "it is 1 entries of the cluster's log behind"])
    there.deploy(config={"version": 2})
    before = len(there.store.calls)
    roll(there.cluster, ROLLED, lambda: next(lacking, None), 30)
    calls = [(verb, name) for verb, _, name in there.store.calls[before:] if verb == "restart"]
    assert calls == [("restart", f"qdrant-{number}") for number in (2, 1, 0)]
    assert next(lacking, "asked") == "asked"
    roll(there.cluster, ROLLED, lambda: None, 5)
    assert len([call for call in there.store.calls[before:] if call[0] == "restart"]) == 3


def test_a_pod_that_does_not_come_up_stops_the_change_and_says_why(there: There) -> None:
    there.store.on_start = lambda pod: there.store.not_ready.update({pod: "ImagePullBackOff"})
    there.deploy(config={"version": 2})
    with pytest.raises(UserError, match="pod qdrant-2 is not ready: main: ImagePullBackOff as told; no further pod"):
        roll(there.cluster, ROLLED, lambda: None, 0)
    workload = there.cluster.workload("qdrant", SELECTOR)
    assert workload is not None
    assert (workload.partition, workload.outdated) == (3, [0, 1])
    # The next change is what mends it.
    there.store.on_start = lambda pod: there.store.not_ready.clear()
    there.deploy(config={"version": 3})
    roll(there.cluster, ROLLED, lambda: None, 30)
    workload = there.cluster.workload("qdrant", SELECTOR)
    assert workload is not None
    assert workload.outdated == []


def test_volumes_grow_and_the_pods_stay(there: There) -> None:
    wanted = {"qdrant": {"storage": 20 * GIB}}
    said: list[str] = []
    grow(there.cluster, plans(there.cluster, wanted, {}), said.append)
    assert said[-1] == "re-create the StatefulSet qdrant around its running pods"
    assert {claim.size for claim in there.cluster.claims()} == {20 * GIB}
    assert there.cluster.templates("qdrant") is None
    assert len(there.store.of("Pod")) == 3
    assert plans(there.cluster, wanted, {}) == []


def test_a_storage_class_that_cannot_grow_is_a_sentence_and_nothing_is_touched(there: There) -> None:
    there.store.expandable = False
    before = len(there.store.calls)
    with pytest.raises(UserError, match="its storage class 'fast' does not allow"):
        plans(there.cluster, {"qdrant": {"storage": 20 * GIB}}, {})
    assert there.store.calls[before:] == []
