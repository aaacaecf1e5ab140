"""What a migration carries exactly, names as left out or as text, and never calls equal: from each kind of source."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest

from plinth.migrate.sources import chroma_server
from plinth.qdrant.client import Qdrant
from tests.conftest import KEY, Server
from tests.migrated import SIZE, Ran, plinth, postgres_server, text, vectors

pytestmark = [pytest.mark.requirement("S3-05"), pytest.mark.timeout(300)]
ROOT = "/api/v2/tenants/default_tenant/databases/default_database/collections"
ODD = (
    "100%",
    "a%sb",
    "%",
    "%%",
    'quo"te',
    "it's",
    "a.b",
    "per cent",
    "ünï",
    "{}",
    "{0}",
    ":name",
    "$1",
    "a\\b",
    "%(x)s",
)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", KEY)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres_server() as server:
        url = str(server.job["url"])
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE ROLE reader LOGIN BYPASSRLS; GRANT pg_read_all_data TO reader")
        yield url


@pytest.fixture
def database(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[Any]]:
    monkeypatch.setenv("PLINTH_SOURCE_DSN", url.replace("compare@", "reader@"))
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def migrate(server: Server, collection: str, state: Path, kind: str, *source: object) -> Ran:
    where = ("--to", server.url, "--collection", collection, "--state", state)
    return plinth("migrate", kind, *source, *where)


def payloads(server: Server, collection: str) -> list[dict[str, Any]]:
    with Qdrant(server.url, KEY) as client:
        found = client.call("POST", f"/collections/{collection}/points/scroll", {"limit": 100, "with_payload": True})
        return [point["payload"] for point in found["points"]]


def report(state: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((state / "report.json").read_text())
    return found


def jsonl(path: Path, lines: list[str], mark: bytes = b"") -> Path:
    vector = json.dumps([1.0] * SIZE)
    records = [f'{{"id": {row}, "vector": {vector}, {line}}}\n' for row, line in enumerate(lines)]
    path.write_bytes(mark + "".join(records).encode())
    return path


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("odd", ["%", "".join(ODD)[:50]])
def test_odd_names_of_schemas_tables_columns_keys_and_types_arrive(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path, odd: str
) -> None:
    schema, table, key, kind, vector = (quoted(f"{word}{odd}") for word in ("s", "t", "k", "e", "v"))
    columns = ", ".join(f"{quoted(name)} text DEFAULT 'p'" for name in ODD)
    for statement in (
        f"CREATE SCHEMA {schema}",
        f"CREATE TYPE {schema}.{kind} AS ENUM ('x%', 'y')",
        f"CREATE TABLE {schema}.{table} ({key} {schema}.{kind}, n int, {columns}, {vector} vector({SIZE}), "
        f"PRIMARY KEY ({key}, n))",
        *(
            f"INSERT INTO {schema}.{table} ({key}, n, {vector}) VALUES ('{name}', {row}, '{text(vectors(2)[row])}')"
            for row, name in enumerate(("x%", "y"))
        ),
    ):
        database.execute(statement.encode())
    more = ("--distance", "cosine", "--where", f"{quoted('100%')} LIKE 'p%'")
    for asked, dry in ((f"{schema}.{table}", ("--dry-run",)), (f"s{odd}.t{odd}", ())):
        ran = migrate(server, collection, tmp_path, "postgres", asked, *more, *dry)
        assert ran.exit_code == 0, ran
    found = payloads(server, collection)
    assert {payload[f"k{odd}"] for payload in found} == {"x%", "y"}
    assert all(payload[name] == "p" for payload in found for name in ODD)


def test_a_table_with_a_dot_in_its_name_is_found_along_the_search_path(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path
) -> None:
    database.execute(f'CREATE TABLE "v1.2.docs" (id int PRIMARY KEY, e vector({SIZE}))')
    database.execute(f"INSERT INTO \"v1.2.docs\" VALUES (1, '{text(vectors(1)[0])}')")
    ran = migrate(server, collection, tmp_path, "postgres", "v1.2.docs", "--distance", "dot")
    assert ran.exit_code == 0, ran


def test_numbers_of_postgres_that_64_bits_do_not_hold_are_carried_and_named(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path
) -> None:
    database.execute(
        f"CREATE TABLE exact (id int PRIMARY KEY, j jsonb, n numeric, o json, e vector({SIZE}), f halfvec(2))"
    )
    document = '{"a": [0.1234567890123456789, 0.1, 12345678901234567890123], "b": 18446744073709551615}'
    database.execute(
        "INSERT INTO exact VALUES (1, %s, 0.30000000000000000001, '{}', %s), (2, '{\"a\": 0.5}', 0.5, '{}', %s)",
        (document, text(vectors(2)[0]), text(vectors(2)[1])),
    )
    asked = ("postgres", "public.exact", "--distance", "cosine", "--vector", "e", "--skip", "o", "--where", "id < 9")
    plan = migrate(server, collection, tmp_path, *asked, "--dry-run")
    for name in (
        "as text, in the first rows: numbers of j",
        "numbers of n",
        "f (halfvec(2)) is left out",
        "o is left out",
    ):
        assert name in plan.said
    ran = migrate(server, collection, tmp_path, *asked)
    assert ran.exit_code == 0, ran
    assert "Equal" not in ran.said
    assert "rows is left out: those for which this is not true: id < 9" in ran.said
    found = report(tmp_path)
    assert (found["verdict"], found["as_text"]) == ("equal", {"j": 1, "n": 1})
    assert set(found["left_out"]) == {"f (halfvec(2))", "o", "rows"}
    one, two = sorted(payloads(server, collection), key=lambda payload: payload["id"])
    assert one["j"] == {"a": ["0.1234567890123456789", 0.1, "12345678901234567890123"], "b": 18446744073709551615}
    assert (one["n"], two["n"], two["j"]) == ("0.30000000000000000001", 0.5, {"a": 0.5})


def test_json_with_a_key_twice_is_rejected_and_not_halved(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path
) -> None:
    database.execute(f"CREATE TABLE doubled (id int PRIMARY KEY, o json, e vector({SIZE}))")
    database.execute('INSERT INTO doubled VALUES (1, \'{"a": 1, "a": 2}\', %s)', (text(vectors(1)[0]),))
    ran = migrate(server, collection, tmp_path, "postgres", "public.doubled", "--distance", "cosine")
    assert ran.exit_code == 1
    assert "the key 'a' stands twice" in (tmp_path / "rejects.jsonl").read_text()


NUMBERS = {
    "18446744073709551616": "18446744073709551616",
    "-9223372036854775809": "-9223372036854775809",
    "18446744073709551615": 18446744073709551615,
    "0.1234567890123456789": "0.1234567890123456789",
    "0.1": 0.1,
    "1e400": "1e400",
    "1e-400": "1e-400",
    "2.5e3": 2500.0,
    "9007199254740993.0": "9007199254740993.0",
    "123456789012345678901234567890": "123456789012345678901234567890",
    "9" * 5000: "9" * 5000,
}


def test_numbers_of_a_file_that_64_bits_do_not_hold_are_carried_and_named(
    server: Server, collection: str, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "a.jsonl", [f'"n": {{"deep": [{number}]}}' for number in NUMBERS])
    asked = ("file", path, "--distance", "cosine")
    assert (
        "as text, in the first rows: numbers of n"
        in migrate(server, collection, tmp_path / "s", *asked, "--dry-run").said
    )
    ran = migrate(server, collection, tmp_path / "s", *asked)
    assert ran.exit_code == 0, ran
    assert "Equal" not in ran.said
    changed = sum(isinstance(value, str) for value in NUMBERS.values())
    assert f"numbers of n in {changed} rows" in " ".join(ran.said.split())
    assert report(tmp_path / "s")["as_text"] == {"n": changed}
    found = sorted(payloads(server, collection), key=lambda payload: payload["id"])
    assert [payload["n"]["deep"][0] for payload in found] == list(NUMBERS.values())


def test_a_file_of_which_nothing_changes_is_equal(server: Server, collection: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ['"n": 0.25', '"n": 7'])
    ran = migrate(server, collection, tmp_path / "s", "file", path, "--distance", "cosine")
    assert "Equal: nothing is lost, doubled or changed." in ran.said
    assert (report(tmp_path / "s")["left_out"], report(tmp_path / "s")["as_text"]) == ({}, {})


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_byte_order_mark_loses_no_record(server: Server, collection: str, tmp_path: Path, mark: bytes) -> None:
    path = jsonl(tmp_path / "a.jsonl", [f'"n": {row}' for row in range(300)], mark)
    ran = migrate(server, collection, tmp_path / "s", "file", path, "--distance", "cosine")
    assert ran.exit_code == 0, ran
    assert report(tmp_path / "s")["points"] == 300


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_file_of_another_encoding_is_a_sentence(
    server: Server, collection: str, tmp_path: Path, encoding: str
) -> None:
    path = jsonl(tmp_path / "a.jsonl", ['"word": "Köln"'])
    path.write_bytes(path.read_text().encode(encoding))
    ran = migrate(server, collection, tmp_path / "s", "file", path, "--distance", "cosine")
    assert ran.exit_code in (1, 2)
    assert "Equal" not in ran.said


def test_a_payload_beside_a_matrix_is_whole_or_named(server: Server, collection: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", vectors(2).astype(np.float64))
    lines = tmp_path / "p.jsonl"
    lines.write_bytes(codecs.BOM_UTF8 + b'{"n": 1}\n{"n": 18446744073709551616}\n{"n": 3}\n')
    asked = ("file", tmp_path / "a.npy", "--payload", lines, "--distance", "dot")
    ran = migrate(server, collection, tmp_path / "s", *asked)
    assert ran.exit_code == 0, ran
    assert set(report(tmp_path / "s")["left_out"]) == {"digits of the vectors", "the payload's last lines"}
    assert [payload["n"] for payload in payloads(server, collection)] == [1, "18446744073709551616"]
    for content in (b"\xff\xfe{\0", b'{"n": 1}\nK\xf6ln\n', b"[1]\n[2]\n"):
        lines.write_bytes(content)
        refused = migrate(server, collection, tmp_path / "t", *asked)
        assert refused.exit_code == 2, refused


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("chroma")
    (directory / "chroma.sqlite3").touch()
    with chroma_server.serve(directory) as url:
        yield url


def test_chromas_uris_arrive_and_what_else_it_has_is_named(
    chroma: str, server: Server, collection: str, tmp_path: Path
) -> None:
    with httpx.Client(base_url=chroma, timeout=60) as http:
        body = {
            "name": "pictures",
            "metadata": {"owner": "team", "hnsw:M": 32},
            "configuration": {"hnsw": {"space": "cosine", "ef_construction": 200}},
        }
        answer = http.post(ROOT, json=body)
        if not answer.is_success:
            body["metadata"] = {"owner": "team"}
            answer = http.post(ROOT, json=body).raise_for_status()
        rows = {
            "ids": ["a", "b"],
            "embeddings": vectors(2).tolist(),
            "documents": ["text", None],
            "uris": ["s3://pictures/a.png", None],
            "metadatas": [{"n": 1}, {"n": 2}],
        }
        http.post(f"{ROOT}/{answer.json()['id']}/add", json=rows).raise_for_status()
    asked = ("chroma", chroma, "--source-collection", "pictures")
    plan = migrate(server, collection, tmp_path, *asked, "--dry-run")
    for words in ("uri", "document", "metadata of the collection is left out: owner", "settings of the index"):
        assert words in plan.said
    ran = migrate(server, collection, tmp_path, *asked)
    assert ran.exit_code == 0, ran
    assert "Equal" not in ran.said
    assert {"metadata of the collection", "settings of the index"} <= set(report(tmp_path)["left_out"])
    found = {payload["id"]: payload for payload in payloads(server, collection)}
    assert found["a"] == {"id": "a", "document": "text", "uri": "s3://pictures/a.png", "n": 1}
    assert found["b"] == {"id": "b", "n": 2}


def test_an_empty_source_is_a_sentence(
    chroma: str, database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path
) -> None:
    httpx.post(f"{chroma}{ROOT}", json={"name": "nothing"}).raise_for_status()
    database.execute("CREATE TABLE nothing (id int PRIMARY KEY, e vector)")
    (tmp_path / "a.jsonl").touch()
    np.save(tmp_path / "a.npy", np.zeros((0, SIZE), np.float32))
    for source in (
        ("chroma", chroma, "--source-collection", "nothing"),
        ("postgres", "public.nothing", "--distance", "cosine"),
        ("file", tmp_path / "a.jsonl", "--distance", "cosine"),
        ("file", tmp_path / "a.npy", "--distance", "cosine"),
    ):
        for more in ((), ("--dry-run",)):
            ran = migrate(server, collection, tmp_path / "s", *source, *more)
            assert ran.exit_code == 2, ran
            assert "422" not in ran.said
            assert "vector" in ran.said
    with Qdrant(server.url, KEY) as client:
        assert collection not in client.collections()
