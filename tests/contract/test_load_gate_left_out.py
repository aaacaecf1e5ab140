"""Who leaves the load gate's collection out, on each engine: backups, the exporter, `collections diff`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from plinth.backup.stores.qdrant import backup
from plinth.backup.stores.qdrant.node_client import Node
from plinth.exporter.collector import Watch
from plinth.exporter.config import Config, Listen, Watched
from plinth.qdrant.client import Qdrant
from plinth.qdrant.load_mark import MARK
from plinth.qdrant.plan import plan
from plinth.qdrant.server_state import read
from tests.conftest import KEY, Server

GATES = {"plinth_load_0123_aaaaaa": {MARK: {"kept": True}}, "plinth_load_0123_aaaaaa_new_0": {MARK: {"pid": 1}}}
USERS = {
    "plinth_load_mine": None,
    "plinth_load_0123": {"owner": "search"},
    "plinth_load_0123_bbbbbb": {MARK: "a word of theirs"},
    "gates_like_mine": {MARK: {"pid": 1}},
}


@pytest.fixture
def client(server: Server) -> Iterator[Qdrant]:
    vectors = {"size": 4, "distance": "Cosine"}
    with Qdrant(server.url, KEY) as connected:
        for name, metadata in (GATES | USERS).items():
            connected.call("PUT", f"/collections/{name}", {"vectors": vectors, "metadata": metadata})
        yield connected
        for name in GATES | USERS:
            connected.call("DELETE", f"/collections/{name}")


def test_the_gates_are_left_out_and_everybody_elses_are_in(client: Qdrant, server: Server, tmp_path: Path) -> None:
    there = set(client.collections()) - set(GATES)
    said: list[str] = []
    node = Node(server.url, KEY)
    taking = backup.Taking(tmp_path / "stage", tmp_path, said.append, [node])
    part = taking.take()
    assert part is not None
    assert {taken.name for taken in part.collections} >= set(USERS)
    assert {taken.name for taken in part.collections} <= there
    assert [name for name in GATES if any(f"leaving out qdrant {name}," in words for words in said)] == list(GATES)
    assert set(backup.described([node])) == there

    unmanaged = set(plan([], read(client)).unmanaged)
    assert unmanaged == there

    watched = Watched(url=server.url, peers=1, memory_limit_bytes=0)
    config = Config(listen=Listen(host="127.0.0.1", port=1), qdrant=watched, collections=())
    reading = Watch(config, client, CollectorRegistry()).round()
    assert set(reading.collections) == there
    assert set(reading.load_gates) == set(GATES)
