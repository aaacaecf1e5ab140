"""The embedded engine's pure parts, and what it does when the disk is full."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.embedded import metrics, requests, shard_files, sparse_files
from plinth.embedded.collection_registry import new_config, patched
from plinth.embedded.conditions import point_id
from plinth.embedded.config import Config, load
from plinth.embedded.engine_process import Engine, as_api_error
from plinth.embedded.errors import ApiError
from plinth.embedded.filters import demands, filter_of, keys_of
from plinth.embedded.operations import points_of
from plinth.embedded.vectors import Vectors
from plinth.errors import UserError
from plinth.system.archives import UnsafeArchive, unpack

DEFAULTS = Config(
    "127.0.0.1",
    6333,
    Path("/s"),
    Path("/n"),
    optimizers={
        "indexing_threshold": 10000,
        "flush_interval_sec": 5,
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 1000,
        "default_segment_number": 0,
        "max_segment_size": None,
        "max_optimization_threads": None,
    },
)
PLAIN = {"vectors": {"size": 4, "distance": "Dot"}}


@given(st.integers() | st.text() | st.floats() | st.booleans() | st.none() | st.uuids().map(str))
def test_a_point_id_is_an_unsigned_integer_or_a_uuid_and_nothing_else(value: Any) -> None:
    is_uuid = isinstance(value, str) and _parses_as_uuid(value)
    if is_uuid or (type(value) is int and 0 <= value < 2**64):
        assert str(point_id(value)).replace("-", "").lower() in str(value).replace("-", "").lower()
    else:
        with pytest.raises(ApiError, match="not a valid point ID"):
            point_id(value)


def _parses_as_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


leaves = st.one_of(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from("abc"),
            "match": st.fixed_dictionaries({"value": st.integers(0, 9) | st.text() | st.booleans()}),
        }
    ),
    st.fixed_dictionaries({"key": st.sampled_from("abc"), "range": st.fixed_dictionaries({"gte": st.floats(-9, 9)})}),
    st.fixed_dictionaries({"has_id": st.lists(st.integers(0, 99))}),
    st.fixed_dictionaries({"is_empty": st.fixed_dictionaries({"key": st.sampled_from("abc")})}),
)
filters = st.recursive(
    st.dictionaries(st.sampled_from(["must", "should", "must_not"]), st.lists(leaves, max_size=3), max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from(["must", "should", "must_not"]), st.lists(inner | leaves, max_size=3), max_size=3
    ),
    max_leaves=6,
)


@given(filters)
def test_every_filter_of_the_api_is_taken_and_its_keys_are_seen(body: dict[str, Any]) -> None:
    checked = requests.parse(requests.BODIES["count"], orjson.dumps({"filter": body}))
    assert filter_of(checked["filter"]) is not None
    assert set(keys_of(body)) <= set("abc")
    if demands(body, {"a"}):
        assert "a" in set(keys_of(body))


@pytest.mark.parametrize(
    "body",
    [
        {"mst": []},
        {"must": [{"key": "a", "match": {"valu": 1}}]},
        {"must": [1]},
        [1],
        {"must": [{"key": "a", "range": {"gte": "yesterday"}}]},
    ],
)
def test_a_malformed_filter_is_400(body: Any) -> None:
    with pytest.raises(ApiError) as refused:
        requests.parse(requests.BODIES["count"], orjson.dumps({"filter": body}))
    assert refused.value.status == 400


def test_columns_are_points() -> None:
    assert points_of({"batch": {"ids": [1, 2], "vectors": [[1], [2]], "payloads": [{"a": 1}, None]}}) == [
        {"id": 1, "vector": [1], "payload": {"a": 1}},
        {"id": 2, "vector": [2], "payload": None},
    ]
    assert points_of({"batch": {"ids": [1], "vectors": {"v": [[1]], "w": [[2]]}}})[0]["vector"] == {"v": [1], "w": [2]}
    with pytest.raises(ApiError, match="differ in length"):
        points_of({"batch": {"ids": [1, 2], "vectors": [[1]]}})


changes = st.fixed_dictionaries(
    {},
    optional={
        "hnsw_config": st.fixed_dictionaries(
            {}, optional={"m": st.integers(0, 64), "ef_construct": st.integers(4, 512)}
        ),
        "optimizers_config": st.fixed_dictionaries({}, optional={"deleted_threshold": st.floats(0, 1)}),
        "quantization_config": st.sampled_from(["Disabled", {"scalar": {"type": "int8"}}]),
        "params": st.fixed_dictionaries({}, optional={"on_disk_payload": st.booleans()}),
        "shard_number": st.just(7),
    },
)


@given(st.lists(changes, max_size=4))
def test_a_patch_merges_what_it_names_and_leaves_the_rest(patches: list[dict[str, Any]]) -> None:
    config = new_config(PLAIN, DEFAULTS)
    for change in patches:
        after = patched(config, change)
        assert after["hnsw_config"] == {**config["hnsw_config"], **change.get("hnsw_config", {})}
        assert after["params"]["vectors"] == PLAIN["vectors"]
        assert after["params"]["shard_number"] == 1
        assert patched(after, change) == after
        config = after


def test_a_full_disk_refuses_the_write_with_qdrants_words_and_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tmp_path / "c", new_config(PLAIN, DEFAULTS), {})
    upsert = orjson.dumps({"points": [{"id": 1, "vector": [1.0, 0, 0, 0]}]})
    engine.answer("upsert", upsert)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1024))
    with pytest.raises(ApiError, match="No space left on device") as refused:
        engine.answer("upsert", upsert)
    assert refused.value.status == 500
    assert orjson.loads(engine.answer("count", b"{}")) == {"count": 1}
    engine.close()


def test_the_remains_of_a_rebuild_that_was_cut_off_are_removed(tmp_path: Path) -> None:
    for name in ("shard-0", "shard-1", "shard-1.source"):
        (tmp_path / name).mkdir()
    shard_files.make_current(tmp_path / "shard-0")
    (tmp_path / "shard-1.job.json").touch()
    shard_files.clean(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"shard-0", "current"}


@given(st.lists(st.floats(0, 100), max_size=50))
def test_a_histogram_counts_every_answer_once_and_each_bucket_holds_those_below(seconds: list[float]) -> None:
    counted = metrics.Requests()
    for took in seconds:
        counted.record("POST", "/x", 200, took)
    found = {
        line.partition('le="')[2].partition('"')[0]: int(line.split()[-1])
        for line in counted.lines()
        if "_bucket" in line
    }
    for edge, count in found.items():
        assert count == sum(took <= float(edge.replace("+Inf", "inf")) for took in seconds)


@pytest.mark.parametrize("text", ["a: [", "- 1", "service: {http_port: x}"])
def test_a_broken_config_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="cannot be read as Qdrant's config"):
        load(path)


def test_a_panic_of_the_wheel_costs_its_write_and_no_later_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    multi = {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}}
    config = new_config({"vectors": {"m": multi}}, DEFAULTS)
    engine = Engine(tmp_path / "c", config, {})

    def upsert(identifier: int, rows: Any) -> Any:
        body = {"points": [{"id": identifier, "vector": {"m": rows}}]}
        return orjson.loads(engine.answer("upsert", orjson.dumps(body)))

    upsert(1, [[1.0, 2.0]])
    with monkeypatch.context() as patched_out:
        # What no check lets through.
        patched_out.setattr(Vectors, "stored", lambda _self, value: value)
        with pytest.raises(BaseException, match="left == right") as panic:
            upsert(2, [[1.0, 2.0], [3.0]])
        assert not isinstance(panic.value, Exception)
        assert as_api_error(panic.value, "upsert", tmp_path).status == 500
    upsert(3, [[1.0, 2.0]])
    # As after SIGKILL: closing would flush.
    shutil.copytree(tmp_path / "c", tmp_path / "killed")
    engine.close()
    again = Engine(tmp_path / "killed", config, {})
    assert orjson.loads(again.answer("count", b"{}")) == {"count": 2}
    assert again.info()["status"] == "green"
    assert not list((tmp_path / "killed").glob("damaged-*"))
    again.close()


@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3)), max_size=4))
def test_a_file_and_its_holes_come_back_from_a_sparse_member(
    tmp_path_factory: pytest.TempPathFactory, end: bytes, pieces: list[tuple[int, int]]
) -> None:
    directory = tmp_path_factory.mktemp("holes")
    file = directory / "file"
    with file.open("wb") as made:
        for place, length in pieces:
            made.seek(place * sparse_files.CHUNK + 7)
            made.write(b"x" * length * 1000)
        made.seek(45 * sparse_files.CHUNK)
        made.write(end)
        made.truncate()
    with tarfile.open(directory / "archive", "w", format=tarfile.PAX_FORMAT) as archive:
        sparse_files.add(archive, directory / "file", "a/file")
    with tarfile.open(directory / "archive", "r:") as archive:
        unpack(archive, directory / "unpacked", holes=True)
    assert (directory / "unpacked/a/file").read_bytes() == file.read_bytes()
    subprocess.run(["tar", "-C", directory, "-xf", directory / "archive"], check=True)
    assert (directory / "a/file").read_bytes() == file.read_bytes()
    sparse_files.copy(str(file), str(directory / "copy"))
    assert (directory / "copy").read_bytes() == file.read_bytes()
    assert (directory / "archive").stat().st_size <= (len(pieces) * 2 + 2) * sparse_files.CHUNK + 30 * 512


@pytest.mark.parametrize("realsize", ["-1", "99999999999999999999", "x"])
def test_a_sparse_member_that_lies_is_refused(tmp_path: Path, realsize: str) -> None:
    member = tarfile.TarInfo("lies")
    text = b"1\n0\n512\n".ljust(512, b"\0")
    member.size = len(text) + 10
    member.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "lies",
        "GNU.sparse.realsize": realsize,
    }
    with tarfile.open(tmp_path / "archive", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(text + b"y" * 10))
    with (
        pytest.raises((tarfile.TarError, UnsafeArchive, ValueError, OSError, OverflowError)),
        tarfile.open(tmp_path / "archive", "r:") as archive,
    ):
        unpack(archive, tmp_path / "unpacked", holes=True)
