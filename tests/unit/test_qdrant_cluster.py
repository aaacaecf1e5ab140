"""When a node is well in its cluster, and when one may leave: pure functions over what the nodes say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.qdrant.cluster import View, describe, refuse_removal, unsettled, view

STATES = ["Active", "Dead", "Partial", "Initializing", "Listener", "PartialSnapshot", "Recovery", "ManualRecovery"]


def cluster(own: int, peers: int = 3, leader: int | None = 1, pending: int = 0, commit: int = 9) -> dict[str, Any]:
    return {
        "status": "enabled",
        "peer_id": own,
        "peers": {str(n): {"uri": f"http://qdrant-{n - 1}.peers:6335/"} for n in range(1, peers + 1)},
        "raft_info": {"leader": leader, "pending_operations": pending, "commit": commit},
    }


def collection(own: int, states: dict[int, str], transfers: int = 0) -> dict[str, Any]:
    return {
        "local_shards": [{"shard_id": 0, "state": state} for peer, state in states.items() if peer == own],
        "remote_shards": [
            {"shard_id": 0, "peer_id": peer, "state": state} for peer, state in states.items() if peer != own
        ],
        "shard_transfers": [{}] * transfers,
    }


def seen_by(own: int, states: dict[int, str] | None = None, *, peers: int = 3, transfers: int = 0) -> View:
    return view(cluster(own, peers), {"c": collection(own, states or {1: "Active", 2: "Active"}, transfers)})


def test_a_view_names_every_peer_and_replica() -> None:
    seen = seen_by(2)
    assert seen.peers == {1: "qdrant-0.peers", 2: "qdrant-1.peers", 3: "qdrant-2.peers"}
    assert {(replica.peer, replica.state) for replica in seen.replicas} == {(1, "Active"), (2, "Active")}


def test_a_node_is_settled_when_it_and_another_see_every_replica_active() -> None:
    assert unsettled(seen_by(1), [seen_by(2), seen_by(3)], expected=1) is None


def test_the_first_node_of_a_cluster_is_settled_alone() -> None:
    assert unsettled(seen_by(1, {1: "Active"}, peers=1), [], expected=1) is None


@pytest.mark.parametrize(
    ("own", "others", "expected", "words"),
    [
        (seen_by(1, peers=1), [], 2, "it knows 1 of 2 peers"),
        (view(cluster(1, leader=None), {}), [seen_by(2)], 1, "no leader"),
        (seen_by(1), [], 1, "no other peer answers"),
        (view(cluster(1, commit=7), {}), [seen_by(2), seen_by(3)], 3, "it is 2 entries of the cluster's log behind"),
        (view(cluster(9), {}), [seen_by(2)], 1, "founded a cluster of its own"),
        (seen_by(1), [seen_by(2, {1: "Dead", 2: "Active"})], 1, "1 replica(s) are not active as peer 2 sees it"),
        (seen_by(1), [seen_by(2, transfers=2)], 1, "2 shard transfer(s) are under way"),
    ],
)
def test_what_a_node_lacks_is_said(own: View, others: list[View], expected: int, words: str) -> None:
    assert words in str(unsettled(own, others, expected))


@given(st.dictionaries(st.integers(1, 3), st.sampled_from(STATES), min_size=1))
def test_a_node_is_never_settled_while_anyone_sees_a_replica_that_is_not_well(states: dict[int, str]) -> None:
    verdict = unsettled(seen_by(1), [seen_by(2), seen_by(3, states)], expected=3)
    assert (verdict is None) == all(state in ("Active", "Listener") for state in states.values())


def test_a_node_with_shards_may_not_leave() -> None:
    said = refuse_removal(seen_by(1), "qdrant-1.peers")
    assert "still holds 1 shard replica(s)" in str(said)
    assert "move its shards to other peers" in str(said)


def test_a_node_without_shards_leaves_once_it_is_no_peer_any_more() -> None:
    assert "is a member of the cluster" in str(refuse_removal(seen_by(1), "qdrant-2.peers"))
    assert refuse_removal(seen_by(1), "qdrant-3.peers") is None


def test_peers_are_described_by_name_with_what_is_wrong() -> None:
    lines = describe(seen_by(1, {1: "Active", 3: "Dead"}))
    assert [(line["peer"], line["leader"], line["replicas"]) for line in lines] == [
        ("qdrant-0.peers", True, 1),
        ("qdrant-1.peers", False, 0),
        ("qdrant-2.peers", False, 1),
    ]
    assert lines[2]["not_active"] == ["c/0: Dead"]
