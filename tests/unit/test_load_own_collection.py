"""The load gate's own collection: gone after a run whatever ended it, and told from everybody else's."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from plinth.backup.stores.qdrant.backup import Taking
from plinth.backup.stores.qdrant.node_client import Node
from plinth.errors import UserError
from plinth.load.collection_setup import fitted, gate_spec, shards_of
from plinth.load.dataset import Dataset
from plinth.load.locust_runner import Schedule
from plinth.load.own_collection import Lease, own_collection, renew
from plinth.qdrant.apply import converge
from plinth.qdrant.client import Qdrant, QdrantError
from plinth.qdrant.cluster_observer import observe
from plinth.qdrant.load_mark import MARK
from plinth.qdrant.plan import plan
from plinth.qdrant.server_state import read
from plinth.qdrant.spec import CollectionSpec, load_specs
from tests.conftest import ROOT
from tests.unit.qdrant_server import InMemoryQdrant

EMBEDDINGS = next(s for s in load_specs(ROOT / "config" / "collections") if "embeddings" in s.aliases)
GATE = EMBEDDINGS.model_copy(update={"name": "plinth_load_0123", "aliases": ()})
# `GET /collections/{name}/cluster` of the first of three nodes (v1.18.3), none of whose settings names a shard number.
THREE_NODES = {
    "peer_id": 6551024150864557,
    "shard_count": 3,
    "local_shards": [{"shard_id": 1, "points_count": 1783, "state": "Active"}],
    "remote_shards": [
        {"shard_id": 0, "peer_id": 7737594185180146, "state": "Active"},
        {"shard_id": 2, "peer_id": 309163923311604, "state": "Active"},
    ],
    "shard_transfers": [],
}
RAFT = {"leader": 1, "term": 1, "commit": 9, "pending_operations": 0, "role": "Leader"}


def quiet(_: str) -> None:
    """No progress is shown."""


def nothing() -> None:
    """The run ends by itself."""


def ends_with(error: BaseException) -> Callable[[], None]:
    def end() -> None:
        raise error

    return end


@pytest.mark.parametrize(
    "end",
    [
        nothing,
        ends_with(KeyboardInterrupt()),
        ends_with(SystemExit(143)),
        ends_with(UserError("Locust ended without a result", exit_code=3)),
        ends_with(QdrantError("the server is gone")),
        ends_with(RuntimeError("a fault of our own")),
    ],
)
def test_a_run_drops_its_collection_whatever_ends_it(end: Callable[[], None]) -> None:
    server = InMemoryQdrant()
    with suppress(BaseException), own_collection(server, GATE, keep=False, say=quiet) as spec:
        converge(server, spec)
        assert list(server.stored) == [spec.name]
        end()
    assert server.stored == {}


def test_a_kept_collection_is_used_again_and_then_dropped() -> None:
    server, said = InMemoryQdrant(), []
    with own_collection(server, GATE, keep=True, say=said.append) as spec:
        converge(server, spec)
    assert list(server.stored) == [spec.name]
    assert f"{spec.name} is kept" in said[-1]
    other = GATE.model_copy(update={"name": "plinth_load_4567"})
    with own_collection(server, other, keep=False, say=quiet):
        pass
    assert list(server.stored) == [spec.name]
    with own_collection(server, GATE, keep=False, say=quiet) as again:
        converge(server, again)
        assert list(server.stored) == [again.name]
    assert server.stored == {}


def test_what_could_not_be_dropped_is_said_and_hides_no_other_error() -> None:
    class Gone(InMemoryQdrant):
        def call(self, method: str, path: str, body: Any = None) -> Any:
            if method == "DELETE":
                raise QdrantError("it does not answer")
            return super().call(method, path, body)

    said: list[str] = []
    server = Gone()

    def run() -> None:
        with own_collection(server, GATE, keep=False, say=said.append) as spec:
            converge(server, spec)
            raise UserError("a worker died")

    with pytest.raises(UserError, match="a worker died"):
        run()
    assert "was not dropped, the next run does it" in said[-1]


def test_a_server_that_keeps_no_metadata_is_measured_too() -> None:
    class Older(InMemoryQdrant):
        def _create(self, name: str, body: dict[str, Any]) -> bool:
            return super()._create(name, {key: value for key, value in body.items() if key != "metadata"})

    server = Older()
    server.version = "1.15.5"
    with own_collection(server, GATE, keep=False, say=quiet) as spec:
        converge(server, spec)
        assert list(server.stored) == [spec.name]
    assert server.stored == {}


def own() -> dict[str, Any]:
    return asdict(Lease.own(60))


def dead() -> dict[str, Any]:
    process = subprocess.Popen(["true"])
    process.wait()
    return asdict(replace(Lease.own(60), pid=process.pid))


def another_process_by_now() -> dict[str, Any]:
    """A number that was given again."""
    return asdict(replace(Lease.own(60), started=int(1000 * psutil.Process(os.getpid()).create_time()) - 100_000))


def elsewhere(seconds: float) -> Callable[[], dict[str, Any]]:
    return lambda: asdict(
        replace(Lease.own(60), host="ci-1", space="another boot", until=int(1000 * (time.time() + seconds)))
    )


@pytest.mark.parametrize(
    ("name", "metadata", "is_there_after"),
    [
        ("plinth_load_0123_aaaaaa", lambda: {MARK: dead()}, False),
        ("plinth_load_0123_aaaaaa", lambda: {MARK: another_process_by_now()}, False),
        ("plinth_load_0123_aaaaaa", lambda: {MARK: elsewhere(-1)()}, False),
        ("plinth_load_0123_aaaaaa", lambda: {MARK: {}}, False),
        ("plinth_load_0123_aaaaaa", lambda: {MARK: {"pid": "x", "until": []}}, False),
        ("plinth_load_9999_aaaaaa", lambda: {MARK: dead()}, False),
        ("plinth_load_0123_aaaaaa_new_7", lambda: {MARK: dead()}, False),
        ("plinth_load_0123_aaaaaa", lambda: {MARK: own()}, True),
        ("plinth_load_0123_aaaaaa", lambda: {MARK: elsewhere(60)()}, True),
        # Other people's, however alike.
        ("plinth_load_0123_aaaaaa", lambda: None, True),
        ("plinth_load_0123", lambda: {"owner": "search"}, True),
        ("plinth_load_mine", lambda: {MARK: "yes"}, True),
        ("mine", lambda: {MARK: dead()}, True),
        ("my_plinth_load_0123_aaaaaa", lambda: {MARK: {"kept": True}}, True),
    ],
)
def test_the_next_run_drops_what_a_killed_one_left_and_nobody_elses(
    name: str, metadata: Callable[[], Any], is_there_after: bool
) -> None:
    server = InMemoryQdrant()
    server.call("PUT", f"/collections/{name}", {"vectors": {"size": 4, "distance": "Cosine"}, "metadata": metadata()})
    with own_collection(server, GATE, keep=False, say=quiet) as spec:
        assert spec.name != name or not is_there_after
    assert (name in server.stored) is is_there_after


def test_two_runs_at_once_have_a_collection_each_and_the_second_says_so() -> None:
    server, said = InMemoryQdrant(), []
    with own_collection(server, GATE, keep=False, say=quiet) as first:
        converge(server, first)
        with own_collection(server, GATE, keep=False, say=said.append) as second:
            converge(server, second)
            assert len(server.stored) == 2
        assert list(server.stored) == [first.name]
    assert f"pid {os.getpid()}" in said[0]


def test_each_round_holds_the_collection_for_its_own_time() -> None:
    server = InMemoryQdrant()
    with own_collection(server, GATE, keep=False, say=quiet) as spec:
        converge(server, spec)
        renew(server, spec.name, Schedule(1, 0, 7200, {"search": 1}))
        lease = Lease.of(server.stored[spec.name]["config"]["metadata"])
        assert lease is not None
        assert lease.until > 1000 * (time.time() + 7200)


def test_the_gates_collection_is_no_difference_and_a_users_of_a_like_name_is() -> None:
    server = InMemoryQdrant()
    users = CollectionSpec.model_validate({"name": "plinth_load_mine", "vectors": {"size": 4, "distance": "Cosine"}})
    converge(server, users)
    with own_collection(server, GATE, keep=False, say=quiet) as spec:
        converge(server, spec)
        assert plan([], read(server)).unmanaged == ("plinth_load_mine",)


def dataset(rows: int) -> Dataset:
    vectors = np.zeros((rows, 384), np.float32)
    return Dataset("test-sized", vectors, (), (), (), vectors[:0], (), (), ())


@pytest.mark.parametrize(
    "cluster", [THREE_NODES, {**THREE_NODES, "shard_count": 1}, {**THREE_NODES, "shard_count": 12}]
)
@pytest.mark.parametrize("rows", [2_000, 8_000, 90_000, 200_000])
def test_each_shard_that_the_server_made_is_large_enough_for_an_index(rows: int, cluster: dict[str, Any]) -> None:
    data, server = dataset(rows), InMemoryQdrant()
    spec = gate_spec(EMBEDDINGS, data)
    server.clusters[spec.name] = cluster
    shards = shards_of(server, spec.name)
    assert shards == cluster["shard_count"]
    at = fitted(spec, data, shards).optimizers_config.indexing_threshold
    assert at is not None
    # Points are spread by their hash: no shard has much less than its share.
    assert at <= 0.6 * data.vectors.nbytes / 1024 / shards


@pytest.mark.parametrize("status", [404, 501])
def test_a_server_that_tells_no_shards_has_one(status: int) -> None:
    class Single(Qdrant):
        def call(self, method: str, path: str, body: Any = None) -> Any:
            raise QdrantError("no such request", status)

    assert shards_of(Single("http://nowhere"), "c") == 1


def test_a_collection_that_is_dropped_while_a_cluster_is_looked_at_is_none() -> None:
    class Cluster(InMemoryQdrant):
        def call(self, method: str, path: str, body: Any = None) -> Any:
            if path == "/cluster":
                return {
                    "status": "enabled",
                    "peer_id": 1,
                    "peers": {"1": {"uri": "http://q0:6335/"}},
                    "raft_info": RAFT,
                }
            if path == "/collections":
                return {"collections": [{"name": "plinth_load_0123_aaaaaa_new_3"}]}
            raise QdrantError("Not found: Collection doesn't exist!", 404)

    assert "plinth_load_0123_aaaaaa_new_3" not in str(observe(Cluster()))


def test_a_collection_that_is_dropped_while_a_backup_is_made_is_no_failure(tmp_path: Path) -> None:
    class Leaving(Node):
        def banner(self) -> str:
            return "qdrant - vector search engine 1.18.3"

        def call(self, method: str, path: str, body: Any = None) -> Any:
            if path == "/collections":
                return {"collections": [{"name": "plinth_load_0123_aaaaaa_new_3"}]}
            if path in ("/aliases", "/cluster"):
                return {"aliases": [], "peers": {}}
            raise QdrantError("Not found: Collection doesn't exist!", 404)

    taking = Taking(tmp_path, tmp_path, quiet, [Leaving("http://nowhere")])
    part = taking.take()
    assert part is not None
    assert (part.collections, taking.failures) == ((), [])
