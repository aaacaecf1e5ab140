"""`plinth migrate chroma|qdrant|file` from real stores and files, and what goes wrong on the way."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from plinth.migrate.sources import chroma_server
from plinth.qdrant.client import Qdrant
from tests.conftest import KEY, Server
from tests.migrated import SIZE, Ran, plinth, vectors

pytestmark = [pytest.mark.requirement("S3-05"), pytest.mark.timeout(300)]
ROOT = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    monkeypatch.setenv("PLINTH_SOURCE_API_KEY", KEY)


def migrate(server: Server, collection: str, state: Path, kind: str, *source: object) -> Ran:
    where = ("--to", server.url, "--collection", collection, "--state", state)
    return plinth("migrate", kind, *source, *where)


def found(server: Server, collection: str, identifier: object) -> dict[str, Any]:
    with Qdrant(server.url, KEY) as client:
        point: dict[str, Any] = client.call("GET", f"/collections/{collection}/points/{identifier}")
        return point


def chroma_collection(url: str, name: str, count: int, configuration: dict[str, Any]) -> None:
    with httpx.Client(base_url=url, timeout=60) as http:
        made = http.post(ROOT, json={"name": name, "configuration": configuration}).raise_for_status().json()
        body = {
            "ids": [f"note-{row}" for row in range(count)],
            "embeddings": vectors(count).tolist(),
            "documents": [f"text {row}" if row % 2 else None for row in range(count)],
            "metadatas": [{"n": row, "share": row / 7, "even": row % 2 == 0, "kind": "a"} for row in range(count)],
        }
        http.post(f"{ROOT}/{made['id']}/add", json=body).raise_for_status()


@pytest.fixture(scope="module")
def chroma_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Chroma's own server has written."""
    directory = tmp_path_factory.mktemp("chroma")
    (directory / "chroma.sqlite3").touch()
    with chroma_server.serve(directory) as url:
        chroma_collection(url, "notes", 700, {"hnsw": {"space": "cosine"}})
        chroma_collection(url, "plain", 20, {})
    return directory


@pytest.mark.requirement("S1-13")
def test_chroma_arrives_whole_from_its_directory_and_from_its_server(
    chroma_data: Path, server: Server, collection: str, tmp_path: Path
) -> None:
    ran = migrate(server, collection, tmp_path, "chroma", chroma_data, "--source-collection", "notes")
    assert ran.exit_code == 0, ran
    with Qdrant(server.url, KEY) as client:
        (point,) = client.call(
            "POST",
            f"/collections/{collection}/points/scroll",
            {"limit": 1, "with_vector": True, "filter": {"must": [{"key": "n", "match": {"value": 693}}]}},
        )["points"]
        assert (client.collection(collection) or {})["config"]["params"]["vectors"]["distance"] == "Cosine"
    payload = {"n": 693, "share": 693 / 7, "even": False, "kind": "a", "id": "note-693", "document": "text 693"}
    assert point["payload"] == payload
    assert uuid.UUID(point["id"]).version == 5
    unit = vectors(700)[693] / np.linalg.norm(vectors(700)[693])
    assert point["vector"] == pytest.approx(unit.tolist(), abs=1e-6)
    with chroma_server.serve(chroma_data) as url:
        more = ("--source-collection", "plain", "--id-field", "_id")
        again = migrate(server, f"{collection}_p", tmp_path / "p", "chroma", url, *more)
        assert again.exit_code == 0, again
        typo = migrate(server, collection, tmp_path / "t", "chroma", url, "--source-collection", "nots")
        assert (typo.exit_code, "notes, plain" in typo.said) == (2, True)
        # Looking for it must not have made it.
        assert {one["name"] for one in httpx.get(f"{url}{ROOT}").json()} == {"notes", "plain"}
    with Qdrant(server.url, KEY) as client:
        assert (client.collection(f"{collection}_p") or {})["config"]["params"]["vectors"]["distance"] == "Euclid"
        client.call("DELETE", f"/collections/{collection}_p")


def test_chroma_that_is_not_there_is_said_in_a_sentence(server: Server, tmp_path: Path) -> None:
    nowhere = migrate(server, "c", tmp_path, "chroma", "http://127.0.0.1:9", "--source-collection", "a")
    assert (nowhere.exit_code, "cannot be reached" in nowhere.said) == (1, True)
    empty = migrate(server, "c", tmp_path, "chroma", tmp_path, "--source-collection", "a")
    assert (empty.exit_code, "chroma.sqlite3" in empty.said) == (2, True)


def test_another_qdrant_arrives_with_all_its_vectors_and_indexes(
    server: Server, collection: str, tmp_path: Path
) -> None:
    source = f"{collection}_source"
    rows = vectors(700)
    with Qdrant(server.url, KEY) as client:
        body = {
            "vectors": {"text": {"size": SIZE, "distance": "Cosine"}, "image": {"size": 2, "distance": "Dot"}},
            "sparse_vectors": {"words": {}},
        }
        client.call("PUT", f"/collections/{source}", body)
        client.call("PUT", f"/collections/{source}/index?wait=true", {"field_name": "n", "field_schema": "integer"})
        points = [
            {
                "id": row if row % 2 else str(uuid.UUID(int=row)),
                "vector": {
                    "text": rows[row].tolist(),
                    **({"image": [1.5, row]} if row % 3 else {}),
                    "words": {"indices": [row, 1000], "values": [0.5, 1.0]},
                },
                "payload": {"n": row, "deep": {"a": [None, 0.1 * row]}},
            }
            for row in range(700)
        ]
        client.call("PUT", f"/collections/{source}/points?wait=true", {"points": points})
        ran = migrate(server, collection, tmp_path, "qdrant", server.url, "--source-collection", source)
        assert ran.exit_code == 0, ran
        described = client.collection(collection) or {}
        assert described["payload_schema"]["n"]["data_type"] == "integer"
        assert set(described["config"]["params"]["vectors"]) == {"text", "image"}
        assert found(server, collection, 7) == found(server, source, 7)
        itself = migrate(server, source, tmp_path / "i", "qdrant", server.url, "--source-collection", source)
        assert (itself.exit_code, "itself" in itself.said) == (2, True)
        client.call("DELETE", f"/collections/{source}")


def jsonl(path: Path, documents: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"id": f"doc-{row}", "vector": vector.tolist(), "n": row} for row, vector in enumerate(vectors(count))]


def test_jsonl_arrives_and_lines_that_are_none_are_rejected(server: Server, collection: str, tmp_path: Path) -> None:
    documents = [*numbered(300), {"id": 7, "vector": [1.0] * SIZE, "n": -1}]
    path = jsonl(tmp_path / "a.jsonl", documents)
    ran = migrate(server, collection, tmp_path / "s", "file", path, "--distance", "cosine")
    assert ran.exit_code == 0, ran
    assert found(server, collection, 7)["payload"] == {"id": 7, "n": -1}
    unsaid = migrate(server, collection, tmp_path / "u", "file", path)
    assert (unsaid.exit_code, "--distance" in unsaid.said) == (2, True)
    path.write_text(path.read_text() + '{"id": "x"\n{"n": 1}\n')
    changed = migrate(server, collection, tmp_path / "s", "file", path, "--distance", "cosine")
    assert (changed.exit_code, "--restart" in changed.said) == (1, True)
    rejecting = migrate(server, collection, tmp_path / "s", "file", path, "--distance", "cosine", "--restart")
    assert rejecting.exit_code == 1
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "s" / "rejects.jsonl").read_text().splitlines()]
    assert ["no JSON" in reasons[0], "no 'vector'" in reasons[1]] == [True, True]
    twice = jsonl(tmp_path / "b.jsonl", [*numbered(3), *numbered(1)])
    refused = migrate(server, collection, tmp_path / "t", "file", twice, "--distance", "cosine")
    assert (refused.exit_code, "'doc-0'" in refused.said) == (1, True)


def test_points_of_another_source_are_not_written_over_unasked(server: Server, collection: str, tmp_path: Path) -> None:
    for name, sign in (("one", 1), ("other", -1)):
        jsonl(tmp_path / f"{name}.jsonl", [{**each, "id": each["n"], "n": sign * each["n"]} for each in numbered(30)])

    def moved(name: str, state: str, *more: str) -> Ran:
        asked = (tmp_path / f"{name}.jsonl", "--distance", "cosine", *more)
        return migrate(server, collection, tmp_path / state, "file", *asked)

    assert moved("one", "a").exit_code == 0
    refused = moved("other", "b")
    assert refused.exit_code == 1
    assert "holds another point under an id of the source (1: payload 'n' is 1, in the row -1)" in refused.said
    assert found(server, collection, 1)["payload"]["n"] == 1
    # The same source once more, without its checkpoint, is no other one.
    assert moved("one", "c").exit_code == 0
    assert moved("other", "b", "--restart").exit_code == 0
    assert found(server, collection, 1)["payload"]["n"] == -1


def test_parquet_arrives_with_its_types(server: Server, collection: str, tmp_path: Path) -> None:
    table = pa.table(
        {
            "key": list(range(1000)),
            "embedding": pa.array(vectors(1000).tolist(), pa.list_(pa.float32())),
            "price": pa.array([Decimal("1.10")] * 1000, pa.decimal128(10, 2)),
            "at": pa.array([1_700_000_000_123_456] * 1000, pa.timestamp("us", tz="UTC")),
            "raw": pa.array([b"\xff"] * 1000),
            "deep": [{"a": [row]} for row in range(1000)],
            "fine": pa.array([1_700_000_000_123_456_789] * 1000, pa.timestamp("ns", tz="UTC")),
            "took": pa.array([123_456_789] * 1000, pa.duration("ns")),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    more = ("--key", "key", "--vector", "embedding", "--distance", "euclid")
    ran = migrate(server, collection, tmp_path / "s", "file", tmp_path / "a.parquet", *more)
    assert ran.exit_code == 0, ran
    assert found(server, collection, 999)["payload"] == {
        "key": 999,
        "price": 1.1,
        "at": "2023-11-14T22:13:20.123456Z",
        "raw": base64.b64encode(b"\xff").decode(),
        "deep": {"a": [999]},
        "fine": "2023-11-14 22:13:20.123456789Z",
        "took": 123_456_789,
    }


def test_numpy_arrives_with_a_payload_for_each_row(server: Server, collection: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", vectors(260).astype(np.float64))
    lines = jsonl(tmp_path / "p.jsonl", [{"row": row} for row in range(260)])
    more = ("--payload", lines, "--distance", "manhattan")
    ran = migrate(server, collection, tmp_path / "s", "file", tmp_path / "a.npy", *more)
    assert ran.exit_code == 0, ran
    assert found(server, collection, 259)["payload"] == {"row": 259}
    jsonl(lines, [{"row": 0}])
    short = migrate(server, collection, tmp_path / "t", "file", tmp_path / "a.npy", *more)
    assert (short.exit_code, "fewer lines" in short.said) == (2, True)
    (tmp_path / "a.csv").touch()
    assert migrate(server, collection, tmp_path / "c", "file", tmp_path / "a.csv").exit_code == 2


def test_a_server_that_is_away_for_a_while_costs_nothing(
    embedded: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = embedded()
    path = jsonl(tmp_path / "a.jsonl", numbered(4000))
    began = threading.Event()

    def away() -> None:
        while not (tmp_path / "s" / "checkpoint.json").exists():
            time.sleep(0.005)
        target.stop(9)
        began.set()
        time.sleep(1)
        target.start()

    other = threading.Thread(target=away)
    other.start()
    ran = migrate(target, "c", tmp_path / "s", "file", path, "--distance", "cosine")
    other.join()
    assert began.is_set()
    assert ran.exit_code == 0, ran
    target.stop()
    gone = migrate(target, "c", tmp_path / "g", "file", path, "--distance", "cosine", "--patience", "1")
    assert (gone.exit_code, "cannot be reached" in gone.said) == (1, True)


def test_a_wrong_key_is_said_at_once_and_in_no_loop(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "wrong-key")
    path = jsonl(tmp_path / "a.jsonl", numbered(3))
    ran = migrate(server, "c", tmp_path / "s", "file", path, "--distance", "cosine")
    assert (ran.exit_code, "refuses the API key" in ran.said, "wrong-key" in ran.said) == (1, True, False)


def test_a_plan_is_printed_and_nothing_is_changed(server: Server, collection: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", numbered(40))
    ran = migrate(server, collection, tmp_path / "s", "file", path, "--distance", "dot", "--dry-run", "--json")
    planned = json.loads(ran.said)
    assert (planned["rows"], planned["batch_size"], planned["vectors"][""]["distance"]) == (40, 100, "Dot")
    assert planned["sent_bytes"] > 40 * SIZE
    assert "UUIDv5" in planned["ids"]
    assert not (tmp_path / "s").exists()
    with Qdrant(server.url, KEY) as client:
        assert collection not in client.collections()


def test_a_collection_file_gives_the_collection_its_settings_and_its_batch(server: Server, tmp_path: Path) -> None:
    tenants = [f"t{row % 3}" for row in range(400)]
    documents = [
        {"id": f"k{row}", "vector": vector.tolist(), "tenant_id": tenants[row]}
        for row, vector in enumerate(vectors(400, 384))
    ]
    path = jsonl(tmp_path / "a.jsonl", documents)
    ran = migrate(server, "digi_knowledge", tmp_path / "s", "file", path)
    report = json.loads((tmp_path / "s" / "report.json").read_text())
    with Qdrant(server.url, KEY) as client:
        described = client.collection("digi_knowledge_v1") or {}
        client.call("DELETE", "/collections/digi_knowledge_v1")
    assert ran.exit_code == 0, ran
    # Searched within a tenant, as its links are.
    assert (report["exact_overlap"], report["queries"] > 5) == (1.0, True)
    assert described["config"]["hnsw_config"]["payload_m"] == 16
    assert described["payload_schema"]["tenant_id"]["params"]["is_tenant"] is True
    alone = jsonl(tmp_path / "c.jsonl", [{"id": 1, "vector": [1.0] * 384}])
    without = migrate(server, "digi_knowledge", tmp_path / "c", "file", alone)
    assert (without.exit_code, "1 rows are rejected" in without.said) == (1, True)
    assert migrate(server, "digi_knowledge", tmp_path / "d", "file", alone, "--set", "tenant_id=acme").exit_code == 0
    assert found(server, "digi_knowledge_v1", 1)["payload"] == {"id": 1, "tenant_id": "acme"}
    with Qdrant(server.url, KEY) as client:
        client.call("DELETE", "/collections/digi_knowledge_v1")
    other = jsonl(tmp_path / "b.jsonl", numbered(3))
    size = migrate(server, "digi_knowledge", tmp_path / "b", "file", other)
    assert (size.exit_code, "16 dimensions and digi_knowledge_v1 takes 384" in size.said) == (2, True)
