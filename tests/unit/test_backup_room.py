"""Whether something fits: by disk, not by directory, and by what the set before and the points since let expect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.backup import disk_space
from plinth.backup.manifest import Collection, Manifest, Neo4jPart, Piece, QdrantPart, Range, Shard
from plinth.backup.repository.reachability import directory
from plinth.settings.repository_address import server

DIRECTORIES = [Path(f"/{name}") for name in "abcd"]
SIZES = st.integers(0, 1 << 40)


@given(
    st.dictionaries(st.sampled_from(DIRECTORIES), SIZES, min_size=1),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.lists(SIZES, min_size=3, max_size=3),
)
def test_it_fits_when_each_disk_has_room_for_all_of_its_directories(
    needs: dict[Path, int], on: list[int], free: list[int]
) -> None:
    disks = {path: disk_space.Disk(number, free[number]) for path, number in zip(DIRECTORIES, on, strict=True)}
    taken = {number: sum(size for path, size in needs.items() if disks[path].number == number) for number in range(3)}
    used = {disks[path].number for path in needs}
    fits = all(int(taken[number] * disk_space.SHARE) + disk_space.SPARE <= free[number] for number in used)
    assert (disk_space.refusal("It", needs, disks) is None) == fits


def described(points: int, **vectors: Any) -> dict[str, Any]:
    return {"points_count": points, "config": {"params": {"vectors": vectors}}}


def last(points: int, size: int) -> Manifest:
    shard = Shard(id=0, peer=0, path="qdrant/c/0.snapshot", taken_at=0)
    saved = Collection(name="c", described={}, points=Range.of(points), shard_count=1, shards=(shard,))
    return Manifest(
        name="t",
        plinth="0",
        began_at=0,
        ended_at=0,
        stores={},
        qdrant=QdrantPart(engine="server", version="1", peers={}, aliases={}, collections=(saved,)),
        pieces=(
            Piece(path="qdrant/c/0.snapshot", size=size, sha256="0" * 64),
            Piece(path="redis/dump.rdb", size=7, sha256="0" * 64),
        ),
    )


@given(st.integers(1, 10**6), st.integers(1, 10**9), st.integers(0, 10**6))
def test_a_backup_needs_what_the_one_before_took_and_the_vectors_since(points: int, size: int, new: int) -> None:
    stage, repository, snapshots = DIRECTORIES[:3]
    live = {"c": described(points + new, size=4)}
    needs = disk_space.of_backup(stage, repository, snapshots, last(points, size), live)
    assert needs == {stage: size + 16 * new + 7, repository: 16 * new, snapshots: size + 16 * new}


@given(st.integers(1, 10**6), st.integers(1, 10**9), st.floats(0, 1))
def test_what_was_deleted_to_make_room_is_not_asked_for(points: int, size: int, left: float) -> None:
    stage, now = DIRECTORIES[0], int(points * left)
    needs = disk_space.of_backup(stage, None, None, last(points, size), {"c": described(now, size=4)})
    assert needs == {stage: size * now // points + 7}


@pytest.mark.parametrize(("datatype", "width"), [(None, 4), ("float32", 4), ("float16", 2), ("uint8", 1)])
def test_a_first_backup_needs_at_least_its_vectors(datatype: str | None, width: int) -> None:
    stage, repository = DIRECTORIES[:2]
    needs = disk_space.of_backup(stage, repository, None, None, {"c": described(1000, size=768, datatype=datatype)})
    assert needs == {stage: 768_000 * width, repository: 768_000 * width}


def test_a_graph_is_larger_in_a_server_than_in_a_set() -> None:
    part = Neo4jPart(
        version="5.26.10",
        nodes_path="neo4j/nodes.jsonl",
        relationships_path="neo4j/relationships.jsonl",
        nodes=(),
        relationships=(),
        nodes_checksum="",
        relationships_checksum="",
        constraints=(),
        indexes=(),
    )
    pieces = tuple(Piece(path=path, size=100, sha256="0" * 64) for path in (part.nodes_path, part.relationships_path))
    known = last(10, 1000)
    held = known.model_copy(update={"neo4j": part, "pieces": (*known.pieces, *pieces)})
    more = (
        disk_space.of_drill(DIRECTORIES[0], held)[DIRECTORIES[0]]
        - disk_space.of_drill(DIRECTORIES[0], known)[DIRECTORIES[0]]
    )
    assert more == (2 + disk_space.GRAPH) * 200


def test_a_drill_needs_its_fullest_moment() -> None:
    assert disk_space.of_drill(DIRECTORIES[0], last(10, 1000)) == {DIRECTORIES[0]: disk_space.COPIES * 1000 + 2 * 7}


@pytest.mark.parametrize(
    ("location", "where", "at"),
    [
        ("/data/repository", "/data/repository", None),
        ("local:/data/r", "/data/r", None),
        ("s3:https://host:9000/b/p", None, "https://host:9000"),
        ("s3:http://127.0.0.1:9000/b", None, "http://127.0.0.1:9000"),
        ("s3:s3.amazonaws.com/b", None, "https://s3.amazonaws.com"),
        ("s3://host/b", None, "https://host"),
        ("rest:https://me:pass@host:8000/r", None, "https://host:8000"),
        ("sftp:me@host:/r", None, None),
    ],
)
def test_where_a_repository_is(location: str, where: str | None, at: str | None) -> None:
    assert (directory(location), server(location)) == (where and Path(where), at)
