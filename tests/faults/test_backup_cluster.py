"""Backups of a real Qdrant cluster: every shard, shard keys, another number of nodes, nodes that are gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from plinth.backup import drill, restore
from plinth.backup import run as backup_run
from plinth.backup.restore_source import Wish
from plinth.backup.session import BackupError
from plinth.backup.stores.qdrant.node_client import Node
from tests.cluster import Cluster
from tests.conftest import KEY, real_qdrant
from tests.faults.world import SIZE, Backups, Live, fill_collection

pytestmark = [
    pytest.mark.qdrant,
    pytest.mark.skipif(real_qdrant() is None, reason="no qdrant binary: set PLINTH_QDRANT or put it on PATH"),
]


def fill(nodes: list[Node]) -> None:
    """A collection of three shards twice each, and one of two shard keys that each live on one node but the first."""
    node = nodes[0]
    fill_collection(node, "spread", 200, shard_number=3, replication_factor=2)
    body = {"vectors": {"size": SIZE, "distance": "Dot"}, "sharding_method": "custom", "shard_number": 1}
    node.call("PUT", "/collections/keyed", body)
    node.call("PUT", "/collections/keyed/shards", {"shard_key": "gone"})
    node.call("POST", "/collections/keyed/shards/delete", {"shard_key": "gone"})
    for number, (key, holder) in enumerate(zip(("b", "a"), nodes[1:], strict=True)):
        placement = [holder.call("GET", "/cluster")["peer_id"]]
        node.call("PUT", "/collections/keyed/shards", {"shard_key": key, "placement": placement})
        points = [{"id": number * 100 + i, "vector": [float(i + 1)] * SIZE, "payload": {"n": i}} for i in range(30)]
        node.call("PUT", "/collections/keyed/points?wait=true", {"points": points, "shard_key": key})
    alias = {"create_alias": {"alias_name": "wide", "collection_name": "spread"}}
    node.call("POST", "/collections/aliases", {"actions": [alias]})


@pytest.fixture(scope="module")
def three(place: Path) -> Iterator[Cluster]:
    cluster = Cluster(place / "three", 3)
    fill(cluster.nodes)
    yield cluster
    cluster.stop()
    shutil.rmtree(place / "three")


def backups_of(directory: Path, cluster: Cluster, live: Live) -> Backups:
    urls = [server.url for server in cluster.servers]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "key").write_text(KEY)
    store = {"urls": urls, "api_key_file": str(directory / "key")}
    return Backups(directory, live, {"qdrant": store, "postgres": None, "redis": None})


def test_a_cluster_comes_back_on_another_number_of_nodes(three: Cluster, place: Path, live: Live) -> None:
    made = backups_of(place / "cluster", three, live)
    taken = backup_run.run(made.config, made.say)
    assert taken.manifest.failures == ()
    assert taken.manifest.qdrant
    shards = {each.name: [(shard.id, shard.key) for shard in each.shards] for each in taken.manifest.qdrant.collections}
    assert len(shards["spread"]) == 3
    assert {key for _, key in shards["keyed"]} == {"a", "b"}
    assert len({shard.peer for each in taken.manifest.qdrant.collections for shard in each.shards}) > 1
    assert drill.run(made.config, made.say).problems == {"qdrant": ()}
    two = Cluster(place / "two", 2)
    try:
        there = backups_of(place / "there-cluster", two, live)
        restore.run(made.config, there.config, Wish(), made.say)
        for node in two.nodes:
            assert (node.count("wide"), node.count("keyed")) == (200, 60)
            found = node.call("POST", "/collections/keyed/points/count", {"exact": True, "shard_key": "a"})
            assert found["count"] == 30
        with pytest.raises(BackupError, match="spread holds 200 points"):
            restore.run(made.config, there.config, Wish(), made.say)
        two.nodes[0].call("POST", "/collections/spread/points/delete?wait=true", {"points": list(range(50))})
        restore.run(made.config, there.config, Wish(collections=("spread",), replace=True), made.say)
        assert two.nodes[1].count("wide") == 200
        assert two.nodes[0].aliases() == {"wide": "spread"}
        assert set(two.nodes[0].collections()) == {"spread", "keyed"}
    finally:
        two.stop()


def test_a_node_that_is_gone_costs_only_the_shards_that_it_alone_held(three: Cluster, place: Path, live: Live) -> None:
    made = backups_of(place / "gone", three, live)
    three.servers[1].stop()
    try:
        said = made.call("run", expect=1)
        assert "of keyed has no Active replica on a node that answers" in said
        assert "is INCOMPLETE" in said
        (only,) = made.sets()
        assert not only["complete"]
        assert all("spread" not in sentence for sentence in only["failures"]), only["failures"]
        made.call("drill", expect=1)
    finally:
        three.servers[1].start()
    with pytest.raises(BackupError, match=r"lacks 1 of 2 shards of keyed; take another set"):
        restore.run(
            made.config,
            made.config,
            Wish(snapshot=only["snapshot"], collections=("keyed",), incomplete=True, beside=True),
            made.say,
        )


def test_an_older_server_than_the_set_is_refused(
    three: Cluster, place: Path, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = backups_of(place / "older", three, live)
    backup_run.run(made.config, made.say)
    # There is one binary here; what it says of itself is all that is not real.
    monkeypatch.setattr(Node, "version", "1.17.9")
    with pytest.raises(BackupError, match=r"is 1.17.9 and the set was made by 1.18.3: an older server"):
        restore.run(made.config, made.config, Wish(replace=True), made.say)
