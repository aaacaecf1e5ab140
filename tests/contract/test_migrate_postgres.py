"""`plinth migrate postgres` with a real Postgres and pgvector: what arrives, what is refused, and what a kill costs."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from plinth.migrate import transfer
from plinth.migrate.sources import postgres
from plinth.qdrant.client import Qdrant
from tests.conftest import KEY, Server
from tests.migrated import SIZE, Ran, copy_rows, plinth, postgres_server, text, vectors

ROWS = 600
pytestmark = [pytest.mark.requirement("S3-05"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres_server() as server:
        url = str(server.job["url"])
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
            connection.execute("CREATE ROLE reader LOGIN BYPASSRLS; GRANT pg_read_all_data TO reader")
        yield url


@pytest.fixture
def database(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[Any]]:
    monkeypatch.setenv("PLINTH_SOURCE_DSN", url.replace("compare@", "reader@"))
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = public, extensions")
        yield connection
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS other CASCADE")


def documents(connection: psycopg.Connection[Any], count: int, opclass: str = "vector_cosine_ops") -> None:
    connection.execute(f"CREATE TABLE docs (id bigint PRIMARY KEY, title text, embedding vector({SIZE}))")
    rows = ((i, f"title {i}", text(vector)) for i, vector in enumerate(vectors(count)))
    copy_rows(connection, "docs", "id, title, embedding", rows)
    connection.execute(f"CREATE INDEX ON docs USING hnsw (embedding {opclass})")


def migrate(server: Server, collection: str, state: Path, *more: object, table: str = "public.docs") -> Ran:
    where = ("--to", server.url, "--collection", collection, "--state", state)
    return plinth("migrate", "postgres", table, *where, *more)


def point(server: Server, collection: str, identifier: object) -> dict[str, Any]:
    with Qdrant(server.url, KEY) as client:
        found: dict[str, Any] = client.call("GET", f"/collections/{collection}/points/{identifier}")
        return found


def report(state: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((state / "report.json").read_text())
    return found


def test_a_table_arrives_whole_and_every_type_says_what_it_said(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path
) -> None:
    database.execute(
        f"""CREATE SCHEMA other; CREATE TYPE public.mood AS ENUM ('fine');
        CREATE TABLE other.kinds (id uuid PRIMARY KEY, whole int8, price numeric, long numeric, at timestamptz,
        plain timestamp, day date, doc jsonb, words text[], raw bytea, small real, mood public.mood, span interval,
        nothing text, yes boolean, "embedding" vector({SIZE}), half halfvec(3))"""
    )
    database.execute(
        """INSERT INTO other.kinds VALUES ('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 9223372036854775807, 1.10,
        12345678901234567890.5, '2024-02-29 23:59:59.123456+05', '2024-02-29 01:02:03', '2024-02-29',
        '{"a": [1, null, {"b": 0.1}], "long": 123456789012345678901234567890}', '{x,NULL,"y z"}', '\\xdeadbeef', 0.1,
        'fine', '1 day 02:03:04', NULL, true, %s, '[1,2,3]')""",
        (text(vectors(1)[0]),),
    )
    more = ("--vector", "embedding", "--distance", "dot")
    ran = migrate(server, collection, tmp_path, *more, table="other.kinds")
    assert ran.exit_code == 0, ran
    assert "half (extensions.halfvec(3)) is left out" in ran.said
    found = point(server, collection, "6ba7b810-9dad-11d1-80b4-00c04fd430c8")
    assert found["payload"] == {
        "id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "whole": 9223372036854775807,
        "price": 1.1,
        "long": "12345678901234567890.5",
        "at": "2024-02-29T18:59:59.123456Z",
        "plain": "2024-02-29T01:02:03.000000",
        "day": "2024-02-29",
        "doc": {"a": [1, None, {"b": 0.1}], "long": "123456789012345678901234567890"},
        "words": ["x", None, "y z"],
        "raw": "3q2+7w==",
        "small": 0.1,
        "mood": "fine",
        "span": "P1DT2H3M4S",
        "nothing": None,
        "yes": True,
    }
    assert found["vector"] == pytest.approx(vectors(1)[0].tolist())


def test_the_distance_is_the_one_of_the_index_and_never_guessed(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path
) -> None:
    documents(database, 30, "vector_l2_ops")
    assert migrate(server, collection, tmp_path).exit_code == 0
    with Qdrant(server.url, KEY) as client:
        described = client.collection(collection)
    assert described is not None
    assert described["config"]["params"]["vectors"]["distance"] == "Euclid"
    assert described["config"]["hnsw_config"]["m"] == 16
    database.execute("DROP INDEX docs_embedding_idx")
    unsaid = migrate(server, f"{collection}_2", tmp_path / "2")
    assert (unsaid.exit_code, "--distance" in unsaid.said) == (2, True)


def test_half_vectors_and_sparse_ones_arrive_as_such(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE docs (a int, b text, e halfvec(4), words sparsevec(10), PRIMARY KEY (a, b))")
    database.execute(
        "INSERT INTO docs SELECT i, 'k' || i, ARRAY[i, 1, 0.5, 0.1]::real[]::halfvec(4), '{1:0.5,9:2}/10' "
        "FROM generate_series(1, 250) i"
    )
    ran = migrate(server, collection, tmp_path, "--sparse", "words", "--distance", "cosine")
    assert ran.exit_code == 0, ran
    with Qdrant(server.url, KEY) as client:
        described = client.collection(collection) or {}
        (one,) = client.call("POST", f"/collections/{collection}/points/scroll", {"limit": 1, "with_vector": True})[
            "points"
        ]
    assert described["config"]["params"]["vectors"]["datatype"] == "float16"
    assert one["vector"]["words"] == {"indices": [0, 8], "values": [0.5, 2.0]}
    assert one["payload"]["b"] == f"k{one['payload']['a']}"
    assert uuid.UUID(one["id"]).version == 5


def test_arrays_serve_where_there_is_no_pgvector(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE docs (id text PRIMARY KEY, e real[])")
    rows = ((f"doc-{i}", "{" + text(v)[1:-1] + "}") for i, v in enumerate(vectors(120)))
    copy_rows(database, "docs", "id, e", rows)
    ran = migrate(server, collection, tmp_path, "--vector", "e", "--distance", "cosine")
    assert ran.exit_code == 0, ran
    assert report(tmp_path)["points"] == 120


def test_rows_that_can_be_no_point_are_written_down_with_the_reason(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path
) -> None:
    database.execute("CREATE TABLE docs (id bigint PRIMARY KEY, e real[])")
    bad = ["{0,0}", "{NaN,1}", "{1,Infinity}", "{1,2,3}", "{1,NULL}", None, "{}"]
    copy_rows(database, "docs", "id, e", [(i, "{3,4}") for i in range(5)] + [(10 + i, e) for i, e in enumerate(bad)])
    ran = migrate(server, collection, tmp_path, "--vector", "e", "--distance", "cosine")
    assert ran.exit_code == 1
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rejects] == [10 + i for i in range(len(bad))]
    words = ["zero", "NaN", "NaN or infinite", "3 dimensions, not 2", "NULL", "NULL", "empty"]
    assert all(word in row["reason"] for word, row in zip(words, rejects, strict=True))
    found = report(tmp_path)
    assert (found["equal"], found["rejected"], found["points"], found["missing"]) == (5, 7, 5, 0)
    few = migrate(server, collection, tmp_path / "few", "--vector", "e", "--distance", "cosine", "--max-rejects", 3)
    assert (few.exit_code, "--max-rejects" in few.said) == (1, True)


def test_what_is_asked_wrongly_is_said_in_a_sentence(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents(database, 20)
    no_table = migrate(server, collection, tmp_path, table="public.doks")
    assert (no_table.exit_code, "public.docs" in no_table.said) == (2, True)
    no_column = migrate(server, collection, tmp_path, "--vector", "embeding")
    assert (no_column.exit_code, "it has id, title, embedding" in no_column.said) == (2, True)
    database.execute("ALTER TABLE docs DROP CONSTRAINT docs_pkey")
    no_key = migrate(server, collection, tmp_path)
    assert (no_key.exit_code, "--key" in no_key.said) == (2, True)
    database.execute("INSERT INTO docs SELECT * FROM docs WHERE id = 7")
    twice = migrate(server, collection, tmp_path, "--key", "id")
    assert (twice.exit_code, "2 rows of public.docs have id 7" in twice.said) == (1, True)
    with Qdrant(server.url, KEY) as client:
        # Nothing was written before it was refused.
        assert collection not in client.collections()
    monkeypatch.setenv("PLINTH_SOURCE_DSN", "postgresql://u:s3cret@db.example.supabase.co:6543/postgres")
    pooler = migrate(server, collection, tmp_path)
    assert (pooler.exit_code, "5432" in pooler.said, "s3cret" in pooler.said) == (2, True, False)
    monkeypatch.setenv("PLINTH_SOURCE_DSN", "postgres//u:s3cret/x@:y")
    broken = migrate(server, collection, tmp_path)
    assert (broken.exit_code, "s3cret" in broken.said) == (2, False)


def test_a_superuser_reads_nothing_that_others_wrote(
    database: psycopg.Connection[Any], url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    database.execute("CREATE ROLE almost LOGIN; GRANT pg_execute_server_program TO almost")
    database.execute("CREATE TABLE ran (n int); CREATE TABLE docs (id int PRIMARY KEY, e real[])")
    # A database's owner may let who enters look like another role.
    database.execute("ALTER DATABASE postgres SET role = 'reader'")
    try:
        for user in ("compare", "almost"):
            monkeypatch.setenv("PLINTH_SOURCE_DSN", url.replace("compare@", f"{user}@"))
            ran = plinth("migrate", "postgres", "public.docs", "--to", "http://127.0.0.1:1", "--collection", "c")
            assert (ran.exit_code, f"{user} is a superuser, or may run programs" in ran.said) == (2, True), ran
            assert "GRANT pg_read_all_data TO reader" in ran.said
    finally:
        database.execute("ALTER DATABASE postgres RESET role; DROP ROLE almost")


def test_a_policy_that_hides_rows_is_no_empty_table(
    database: psycopg.Connection[Any],
    url: str,
    server: Server,
    collection: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    documents(database, 20)
    database.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
    role = f"app_{collection}"
    database.execute(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA extensions, public TO {role}; GRANT SELECT ON docs TO {role}"
    )
    monkeypatch.setenv("PLINTH_SOURCE_DSN", url.replace("compare@", f"{role}@"))
    hidden = migrate(server, collection, tmp_path)
    assert (hidden.exit_code, "BYPASSRLS" in hidden.said) == (1, True), hidden


def test_another_plan_or_another_size_is_not_gone_on_with(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path
) -> None:
    documents(database, 50)
    assert migrate(server, collection, tmp_path).exit_code == 0
    other_plan = migrate(server, collection, tmp_path, "--skip", "title")
    assert (other_plan.exit_code, "--restart" in other_plan.said) == (1, True)
    database.execute("ALTER TABLE docs ADD COLUMN more text")
    other_source = migrate(server, collection, tmp_path)
    assert (other_source.exit_code, "--restart" in other_source.said) == (1, True)
    again = migrate(server, collection, tmp_path, "--restart")
    assert again.exit_code == 0, again
    assert point(server, collection, 3)["payload"] == {"id": 3, "title": "title 3", "more": None}
    database.execute("CREATE TABLE small (id int PRIMARY KEY, e vector(3)); INSERT INTO small VALUES (1, '[1,2,3]')")
    size = migrate(server, collection, tmp_path / "2", "--distance", "cosine", table="small")
    assert (size.exit_code, "16-d Cosine" in size.said) == (1, True)


def test_what_changed_since_is_found_and_mended(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path
) -> None:
    documents(database, 300)
    assert migrate(server, collection, tmp_path).exit_code == 0
    database.execute("UPDATE docs SET title = 'new' WHERE id IN (5, 250)")
    with Qdrant(server.url, KEY) as client:
        client.call("POST", f"/collections/{collection}/points/delete?wait=true", {"points": [17]})
    where = ("--to", server.url, "--collection", collection, "--state", tmp_path)
    gap = plinth("migrate", "verify", *where, "--json")
    found = json.loads(gap.out)
    assert (gap.exit_code, found["verdict"], found["missing"], found["different"]) == (1, "gap", 1, 2)
    assert any("title" in example for example in found["examples"])
    assert found["digest_source"] != found["digest_target"]
    assert plinth("migrate", "verify", *where, "--mend").exit_code == 0
    database.execute("DELETE FROM docs WHERE id = 9")
    deleted = plinth("migrate", "verify", *where)
    assert (deleted.exit_code, "1 points come from no row" in deleted.said) == (1, True)


def test_an_alias_moves_when_all_is_equal_and_back_again(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path
) -> None:
    documents(database, 40)
    alias = f"{collection}_alias"
    assert migrate(server, collection, tmp_path, "--cutover", alias).exit_code == 0
    with Qdrant(server.url, KEY) as client:
        assert client.aliases()[alias] == collection
        client.call("PUT", f"/collections/{collection}_v2", {"vectors": {"size": 4, "distance": "Dot"}})
        moved = plinth("migrate", "cutover", alias, "--to", server.url, "--collection", f"{collection}_v2")
        assert moved.exit_code == 0
        assert f"cutover {alias} --to {server.url} --collection {collection}" in moved.said
        assert client.aliases()[alias] == f"{collection}_v2"
        client.call("DELETE", f"/collections/{collection}_v2")


def killed(at: Callable[[], object], *arguments: object) -> int:
    """Run a command in a process of its own and kill it when ``at`` returns; its exit code, or minus the signal."""
    child = multiprocessing.get_context("fork").Process(target=lambda: os._exit(plinth(*arguments).exit_code))
    child.start()
    at()
    if child.is_alive() and child.pid:
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def copied(state: Path) -> int:
    """Rows of the checkpoint; one that was ever there is whole."""
    path = state / "checkpoint.json"
    return int(json.loads(path.read_text())["progress"]["read"]) if path.exists() else -1


def moment(state: Path, drawn: random.Random) -> None:
    """Until a random row is copied, or for a random time from the start; then a little more."""
    rows, deadline = drawn.randrange(-ROWS // 4, ROWS), time.monotonic() + 30
    while rows >= 0 and copied(state) < rows and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(drawn.uniform(0, 0.02 if rows >= 0 else 0.5))


def test_fifty_kills_at_any_moment_lose_and_double_nothing(
    database: psycopg.Connection[Any], server: Server, collection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents(database, ROWS)
    # Many small pages: a kill finds more moments to hit.
    monkeypatch.setattr(transfer, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(postgres, "MOST_ROWS", 10)
    monkeypatch.setattr(postgres, "FIRST_ROWS", 10)
    drawn = random.Random(7)
    assert migrate(server, collection, tmp_path / "first").exit_code == 0
    digests = {(report(tmp_path / "first")["digest_source"], report(tmp_path / "first")["digest_target"])}
    kills = runs = midway = 0
    while kills < 50:
        runs += 1
        name, state = f"{collection}_{runs}", tmp_path / str(runs)
        arguments = ("migrate", "postgres", "public.docs", "--to", server.url, "--collection", name, "--state", state)

        for _ in range(6):
            code = killed(partial(moment, state, drawn), *arguments)
            kills += code == -signal.SIGKILL
            midway += 0 < copied(state) < ROWS
        assert code in (0, -signal.SIGKILL)
        assert plinth(*arguments).exit_code == 0
        found = report(state)
        assert (found["rows"], found["points"], found["equal"]) == (ROWS, ROWS, ROWS)
        assert found["copied"] == {"read": ROWS, "written": ROWS, "rejected": 0}
        digests.add((found["digest_source"], found["digest_target"]))
        with Qdrant(server.url, KEY) as client:
            assert (client.collection(name) or {})["config"]["hnsw_config"]["m"] == 16
            client.call("DELETE", f"/collections/{name}")
    assert len(digests) == 1
    assert len({*digests.pop()}) == 1
    assert midway >= 20, f"only {midway} of {kills} kills came while rows were copied"
