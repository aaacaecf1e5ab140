"""What a broken write, shard or collection costs: itself, and nothing beside it."""

from __future__ import annotations

import contextlib
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import qdrant_edge as edge

from plinth.embedded import wal
from plinth.errors import UserError
from plinth.health.probes import Probe
from plinth.health.status import Dependency, Policy, check
from plinth.migrate.target import wait_green
from plinth.qdrant.client import Qdrant
from plinth.qdrant.plan import plan_collection
from plinth.qdrant.server_state import read_collection
from plinth.qdrant.spec import CollectionSpec
from tests.conftest import KEY, Server
from tests.contract.test_embedded_engine import kill

MULTI = {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}}
BODY = {"vectors": {"m": MULTI}, "sparse_vectors": {"s": {}}}


def asking(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"api-key": KEY}, timeout=60)


def shards(server: Server) -> list[Path]:
    return sorted(server.directory.glob("storage/embedded/*/shard-0"))


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return {"a": value}


POISONS: dict[str, Callable[[], edge.UpdateOperation]] = {
    "ragged multivector": lambda: upsert(edge.Point(9, {"m": [[1.0, 2.0], [3.0]]}, {})),
    "payload beyond what the log reads": lambda: upsert(edge.Point(9, {"m": [[1.0, 2.0]]}, nested(126))),
    "payload set beyond it": lambda: edge.UpdateOperation.set_payload([1], nested(126), None),
}


def upsert(*points: edge.Point) -> edge.UpdateOperation:
    return edge.UpdateOperation.upsert_points(list(points))


@pytest.mark.parametrize("poison", POISONS)
def test_an_entry_of_the_log_that_ends_every_start_costs_itself_alone(
    embedded: Callable[..., Server], poison: str
) -> None:
    server = embedded()
    with asking(server) as client:
        client.put("/collections/c", json=BODY).raise_for_status()
    server.stop()
    (path,) = shards(server)
    poison_log(path, [1, 2, 3], POISONS[poison], [4, 5])
    with pytest.raises(BaseException, match=r"left == right|read WAL|empty"):
        edge.EdgeShard.load(str(copied(path)))
    server.start()
    with asking(server) as client:
        points = client.post("/collections/c/points/scroll", json={"limit": 100}).json()["result"]["points"]
        assert {point["id"] for point in points} == {1, 2, 3, 4, 5}
        assert client.get("/collections/c").json()["result"]["status"] == "green"
        put = {"points": [{"id": 6, "vector": {"m": [[1.0, 2.0]]}}]}
        client.put("/collections/c/points", json=put).raise_for_status()
    assert "left out" in (server.directory / "log").read_text()
    assert list(path.parent.glob("damaged-*.wal"))
    kill(server)
    server.start()
    with asking(server) as client:
        assert client.post("/collections/c/points/count", json={}).json()["result"] == {"count": 6}


def poison_log(path: Path, before: list[int], poison: Callable[[], edge.UpdateOperation], after: list[int]) -> None:
    """Write as an older release did, and end as by SIGKILL: closing a shard would empty its log."""
    shard = edge.EdgeShard.load(str(path))
    for identifier in before:
        shard.update(upsert(edge.Point(identifier, {"m": [[1.0, 2.0]]}, {})))
    with contextlib.suppress(BaseException):
        shard.update(poison())
    for identifier in after:
        shard.update(upsert(edge.Point(identifier, {"m": [[1.0, 2.0]]}, {})))
    killed = copied(path)
    shard.close()
    shutil.rmtree(path)
    killed.rename(path)


def copied(path: Path) -> Path:
    target = path.with_name("copied")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(path, target)
    return target


def test_the_log_is_read_as_it_was_written_and_rewritten_so_that_the_wheel_reads_it(tmp_path: Path) -> None:
    config = edge.EdgeConfig(vectors=edge.EdgeVectorParams(size=2, distance=edge.Distance.Dot))
    shard = edge.EdgeShard.create(str(tmp_path), config)
    for i in range(5):
        shard.update(upsert(edge.Point(i, [1.0, float(i)], {"text": "x" * i})))
    content = (tmp_path / "wal/open-1").read_bytes()
    entries = wal.read(content)
    assert len(entries) == 5
    seed = int.from_bytes(content[4 : wal.HEADER], "little")
    assert content.startswith(content[: wal.HEADER] + wal.written(seed, entries))
    assert wal.read(content[:200]) == entries[: len(wal.read(content[:200]))]
    damaged = content[:20] + b"\xff" + content[21:]
    assert wal.read(damaged) == []
    shard.close()


def broken(server: Server, kind: str) -> None:
    (path,) = [path for path in shards(server) if path.parent.name == "broken"]
    if kind == "no configuration":
        (path / "edge_config.json").write_text("{")
    elif kind == "no segments":
        for file in path.glob("segments/*/segment.json"):
            file.write_text("{")
    else:
        (path.parent / "collection.json").write_text("{")


@pytest.mark.parametrize("kind", ["no configuration", "no segments", "no description"])
def test_a_collection_that_does_not_open_leaves_the_others_alone(embedded: Callable[..., Server], kind: str) -> None:
    server = embedded()
    with asking(server) as client:
        for name in ("broken", "well"):
            client.put(f"/collections/{name}", json=BODY).raise_for_status()
            points = {"points": [{"id": 1, "vector": {"m": [[1.0, 2.0]]}}]}
            client.put(f"/collections/{name}/points", json=points).raise_for_status()
    server.stop()
    broken(server, kind)
    server.start()
    with asking(server) as client:
        assert client.get("/metrics").status_code == 200
        names = [entry["name"] for entry in client.get("/collections").json()["result"]["collections"]]
        assert "well" in names
        assert client.post("/collections/well/points/count", json={}).json()["result"] == {"count": 1}
        assert client.post("/collections/well/snapshots").status_code == 200
        if kind != "no description":
            info = client.get("/collections/broken").json()["result"]
            assert info["status"] == "red"
            assert info["config"]["params"]["vectors"] == BODY["vectors"]
            assert client.post("/collections/broken/snapshots").status_code == 500
            told_of_a_red_collection(server)
        assert client.get("/collections/well").json()["result"]["status"] == "green"


def told_of_a_red_collection(server: Server) -> None:
    """By `status`, by the comparison with its file, and by a migration that would wait for it."""
    dependency = Dependency("qdrant", Probe("qdrant", "127.0.0.1", server.port), KEY)
    summary = check("local", [dependency], Policy(timeout_ms=20_000)).summary
    assert "collection 'broken' is red" in summary
    with Qdrant(server.url, KEY) as client:
        spec = CollectionSpec.model_validate({"name": "broken", "vectors": {"size": 2, "distance": "Dot"}})
        assert plan_collection(spec, read_collection(client, "broken")).refusals
        with pytest.raises(UserError, match="broken is red"):
            wait_green(client, "broken", lambda _: None)


def test_an_engine_process_that_ends_again_and_again_costs_the_front_nothing(embedded: Callable[..., Server]) -> None:
    server = embedded()
    assert server.process is not None
    front = psutil.Process(server.process.pid)
    with asking(server) as client:
        client.put("/collections/c", json=BODY).raise_for_status()
        client.get("/collections/c").raise_for_status()
        before = front.num_fds()
        for _ in range(25):
            for child in front.children():
                child.kill()
                child.wait()
            assert client.post("/collections/c/points/count", json={}).status_code in (200, 500)
        assert client.post("/collections/c/points/count", json={}).json()["result"] == {"count": 0}
        assert front.num_fds() <= before + 2


def test_a_small_collection_is_a_small_snapshot_that_brings_everything_back(embedded: Callable[..., Server]) -> None:
    server = embedded()
    with asking(server) as client:
        client.put("/collections/c", json=BODY).raise_for_status()
        points = [{"id": i, "vector": {"m": [[i + 0.5, 2.5]]}, "payload": {"n": i}} for i in range(50)]
        client.put("/collections/c/points", json={"points": points}).raise_for_status()
        made = client.post("/collections/c/snapshots").json()["result"]
        file = server.directory / "snapshots/c" / made["name"]
        apparent = sum(path.stat().st_size for path in shards(server)[0].rglob("*") if path.is_file())
        assert made["size"] == file.stat().st_size < 4 * 1024 * 1024 < apparent
        before = client.post("/collections/c/points/scroll", json={"limit": 100, "with_vector": True}).json()["result"]
        location = {"location": f"file://{file}"}
        client.put("/collections/again/snapshots/recover", json=location).raise_for_status()
        scrolled = client.post("/collections/again/points/scroll", json={"limit": 100, "with_vector": True})
        assert scrolled.json()["result"] == before
        (path,) = server.directory.glob("storage/embedded/again/shard-*/")
        on_disk = sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())
        assert on_disk < 4 * 1024 * 1024 < apparent
        older = as_an_older_release_made_it(file)
        client.put("/collections/old/snapshots/recover", json={"location": f"file://{older}"}).raise_for_status()
        scrolled = client.post("/collections/old/points/scroll", json={"limit": 100, "with_vector": True})
        assert scrolled.json()["result"] == before


def as_an_older_release_made_it(file: Path) -> Path:
    """The same snapshot with its holes written out."""
    unpacked, older = file.with_name("unpacked"), file.with_name("older.snapshot")
    with tarfile.open(file) as archive:
        for member in archive:
            target = unpacked / member.name
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())
    with tarfile.open(older, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(unpacked / "manifest.json", "manifest.json")
        archive.add(unpacked / "shard", "shard")
    shutil.rmtree(unpacked)
    return older
