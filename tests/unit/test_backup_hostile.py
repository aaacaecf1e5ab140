"""What a set says is hostile text: its paths stay below the directory, and its Cypher is written anew or refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plinth.backup.manifest import parse
from plinth.backup.repository.restic_output import snapshot_of
from plinth.backup.session import BackupError
from plinth.backup.set_paths import folder, is_form
from plinth.backup.stores.neo4j import cypher
from plinth.backup.stores.qdrant.node_client import Node, _part
from plinth.printable import visible
from plinth.qdrant.client import QdrantError, collection_path
from plinth.system import beneath

SHA = "0" * 64
CONTROL = "\x00\x01\x1b\n\r\t\x7f\u0085\u202e\u2028"
HOSTILE_PATHS = (
    "",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "..",
    ".",
    "../x",
    "qdrant/../../x",
    "qdrant/./0.snapshot",
    "qdrant/../0.snapshot",
    "qdrant//0.snapshot",
    "qdrant/a/0.snapshot/",
    "qdrant/a/../../../x.snapshot",
    "qdrant/a/b/0.snapshot",
    "qdrant/a/0.snapshot\n",
    "qdrant/a\x00/0.snapshot",
    "qdrant/\x1b[2J/0.snapshot",
    "qdrant/a b/0.snapshot",
    "qdrant/a%/0.snapshot",
    "qdrant/a%2f/0.snapshot",
    "qdrant/ü/0.snapshot",
    f"qdrant/{'a' * 256}/0.snapshot",
    "qdrant/a/-1.snapshot",
    "qdrant/a/0",
    "escaped/authorized_keys",
    "postgres/../../x.dump",
    "postgres/.dump/x",
    "postgres/globals.sql/x",
    "redis/dump.rdb/../../x",
    "redis/other",
    "grafana/grafana.db-journal",
    "neo4j/nodes.jsonl.partial",
    "manifest.json",
    "..\\x",
    "C:\\x",
    "~/x",
    "--help",
)
PIECES = ("qdrant/a/0.snapshot", "postgres/globals.sql", "postgres/core.dump", "redis/dump.rdb", "grafana/grafana.db")


def manifest(**changed: Any) -> dict[str, Any]:
    """A manifest with every kind of part that has a path."""
    shard = {"id": 0, "peer": 1, "path": PIECES[0], "taken_at": 0.0}
    database = {"name": "core", "owner": "core", "encoding": "UTF8", "collate": "C", "ctype": "C", "path": PIECES[2]}
    graph = {
        "version": "5.26.0",
        "nodes": [],
        "relationships": [],
        "nodes_checksum": "0",
        "relationships_checksum": "0",
    }
    graph |= {"nodes_path": "neo4j/nodes.jsonl", "relationships_path": "neo4j/relationships.jsonl"}
    paths = (*PIECES, graph["nodes_path"], graph["relationships_path"])
    return {
        "name": "t",
        "plinth": "1",
        "began_at": 0.0,
        "ended_at": 1.0,
        "stores": {},
        "qdrant": {
            "engine": "server",
            "version": "1.18.3",
            "peers": {},
            "aliases": {},
            "collections": [{"name": "a", "described": {}, "shard_count": 1, "shards": [shard]}],
        },
        "postgres": {
            "version": "15.0",
            "globals_path": PIECES[1],
            "databases": [database | {"tables": [], "extensions": {}}],
        },
        "redis": {"version": "7.0", "path": PIECES[3], "keys": {}, "expiring": {}, "samples": {}},
        "grafana": {"path": PIECES[4]},
        "neo4j": graph | {"constraints": [], "indexes": []},
        "pieces": [{"path": path, "size": 1, "sha256": SHA} for path in paths],
        **changed,
    }


# Where a manifest names a path, and a path of another store.
NAMED: tuple[tuple[tuple[str | int, ...], str], ...] = (
    (("qdrant", "collections", 0, "shards", 0, "path"), "redis/dump.rdb"),
    (("postgres", "globals_path"), "postgres/core.dump"),
    (("postgres", "databases", 0, "path"), "postgres/globals.sql"),
    (("redis", "path"), "grafana/grafana.db"),
    (("grafana", "path"), "redis/dump.rdb"),
    (("neo4j", "nodes_path"), "neo4j/relationships.jsonl"),
    (("neo4j", "relationships_path"), "neo4j/nodes.jsonl"),
)


def with_path(at: tuple[str | int, ...], path: str) -> str:
    """A manifest that names a path there, and has it as a piece."""
    told = manifest()
    here: Any = told
    for key in at[:-1]:
        here = here[key]
    before, here[at[-1]] = here[at[-1]], path
    next(piece for piece in told["pieces"] if piece["path"] == before)["path"] = path
    return json.dumps(told)


def test_what_plinth_writes_is_read() -> None:
    assert len(parse(json.dumps(manifest()), "set x").pieces) == 7


@pytest.mark.parametrize("at", [at for at, _ in NAMED], ids=lambda at: str(at[-1]))
@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_no_part_of_a_manifest_names_a_path_of_another_form(at: tuple[str | int, ...], path: str) -> None:
    with pytest.raises(BackupError, match="is no path of"):
        parse(with_path(at, path), "set x")


@pytest.mark.parametrize(("at", "path"), NAMED, ids=lambda value: str(value[-1]))
def test_no_part_of_a_manifest_names_another_stores_file(at: tuple[str | int, ...], path: str) -> None:
    with pytest.raises(BackupError, match="is no path of"):
        parse(with_path(at, path), "set x")


def test_a_file_is_of_one_part_and_is_there() -> None:
    one = {"name": "a", "described": {}, "shard_count": 1}
    shard = {"id": 0, "peer": 1, "path": PIECES[0], "taken_at": 0.0}
    qdrant = {**manifest()["qdrant"], "collections": [{**one, "shards": [shard]}, {**one, "shards": [shard]}]}
    with pytest.raises(BackupError, match="twice"):
        parse(json.dumps(manifest(qdrant=qdrant)), "set x")
    with pytest.raises(BackupError, match="is no piece"):
        parse(json.dumps(manifest(pieces=manifest()["pieces"][1:])), "set x")


@given(st.text(max_size=300))
@example("..")
@example("." * 200)
@example("\x00")
@example("=" + SHA)
@example("\u202e" * 255)
def test_every_name_has_a_folder_of_its_own_that_is_a_form(name: str) -> None:
    path = f"qdrant/{folder(name)}/0.snapshot"
    assert is_form(path, "a shard of Qdrant")
    assert beneath.is_plain(path)
    assert folder(name) != folder(name + ".")
    assert folder(name) != folder("=" + name)


PARTS = st.one_of(
    st.sampled_from(["", ".", "..", "...", "link", "file", "directory", "x", "a\x00b", "\x1b[2J", "~", "-rf", "C:"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


@given(st.lists(PARTS, max_size=6).map("/".join))
@settings(max_examples=2000, deadline=None)
@example("../outside/victim")
@example("link/new")
@example("link")
@example("dangling")
@example("directory/up/new")
def test_no_path_leads_out_of_the_directory(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    base = tmp_path_factory.mktemp("beneath")
    outside, inside = base / "outside", base / "inside"
    outside.mkdir()
    (outside / "victim").write_text("as it was")
    (inside / "directory").mkdir(parents=True)
    (inside / "file").write_text("here")
    (inside / "link").symlink_to(outside)
    (inside / "dangling").symlink_to(outside / "new")
    (inside / "directory" / "up").symlink_to("../..")
    try:
        with beneath.create(inside, path) as file:
            file.write(b"written")
            written = Path(f"/proc/self/fd/{file.fileno()}").readlink()
        assert written.is_relative_to(inside)
    except (OSError, ValueError):
        pass
    for act in (lambda: beneath.read(inside, path).close(), lambda: beneath.remove(inside, path)):
        try:
            act()
        except (OSError, ValueError):
            continue
    assert [each.name for each in outside.iterdir()] == ["victim"]
    assert (outside / "victim").read_text() == "as it was"
    assert sorted(each.name for each in base.iterdir()) == ["inside", "outside"]


def test_a_file_that_is_there_is_not_filled(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("first")
    with pytest.raises(FileExistsError):
        beneath.create(tmp_path, "a")


# As Neo4j 5.26 shows them.
STATEMENTS = (
    "CREATE CONSTRAINT `person_id` FOR (n:`Person`) REQUIRE (n.`id`) IS UNIQUE",
    "CREATE CONSTRAINT `odd ``name` FOR ()-[r:`KNOWS ``x`]-() REQUIRE (r.`id`) IS UNIQUE",
    "CREATE CONSTRAINT `k` FOR (n:`A`) REQUIRE (n.`a`, n.`b`) IS NODE KEY",
    "CREATE CONSTRAINT `k` FOR ()-[r:`A`]-() REQUIRE (r.`a`) IS RELATIONSHIP KEY",
    "CREATE CONSTRAINT `e` FOR (n:`A`) REQUIRE (n.`a`) IS NOT NULL",
    "CREATE CONSTRAINT `t` FOR (n:`A`) REQUIRE (n.`a`) IS :: STRING | LIST<STRING NOT NULL>",
    "CREATE RANGE INDEX `i` FOR (n:`Two words`) ON (n.`odd ``key`, n.`b`)",
    "CREATE TEXT INDEX `tx` FOR (n:`Person`) ON (n.`name`) OPTIONS {indexConfig: {}, indexProvider: 'text-2.0'}",
    "CREATE POINT INDEX `pt` FOR (n:`Place`) ON (n.`at`) OPTIONS {indexConfig: {`spatial.cartesian-3d.max`: "
    "[1000000.0, 1000000.0, 1.0E6],`spatial.cartesian.min`: [-1000000.0, -1.5e-3]}, indexProvider: 'point-1.0'}",
    "CREATE FULLTEXT INDEX `words` FOR (n:`Person`|`Text`) ON EACH [n.`name`] OPTIONS {indexConfig: "
    "{`fulltext.analyzer`: 'english',`fulltext.eventually_consistent`: false}, indexProvider: 'fulltext-1.0'}",
    "CREATE VECTOR INDEX `vec` FOR (n:`Text`) ON (n.`v`) OPTIONS {indexConfig: {`vector.dimensions`: 3,"
    "`vector.hnsw.m`: 16,`vector.similarity_function`: 'COSINE'}, indexProvider: 'vector-2.0'}",
)
NOT_CYPHER = (
    "",
    "MATCH (n) DETACH DELETE n",
    "CREATE (n)",
    "CREATE DATABASE x",
    "CREATE USER x SET PASSWORD 'y'",
    "LOAD CSV FROM 'http://127.0.0.1/' AS x RETURN x",
    "CREATE LOOKUP INDEX `l` FOR (n) ON EACH labels(n)",
    *(
        f"{statement} {more}"
        for statement in STATEMENTS
        for more in ("RETURN 1", "; MATCH (n) DETACH DELETE n", "//", "`")
    ),
    "CREATE CONSTRAINT `x` FOR (n:`A`) REQUIRE (m.`id`) IS UNIQUE",
    "CREATE CONSTRAINT `x` FOR (n:`A`) REQUIRE (n.`id`) IS UNIQUE OPTIONS {a: date()}",
    "CREATE CONSTRAINT `x` FOR (n:`A`) REQUIRE (n.`id`) IS UNIQUE OPTIONS {a: 'x\\' }) MATCH (n) DELETE n //'}",
    "CREATE CONSTRAINT `x\\u0060` FOR (n:`A`) REQUIRE (n.`id`) IS UNIQUE",
    "CREATE CONSTRAINT `x` FOR (n:`A\\U0060`) REQUIRE (n.`id`) IS UNIQUE",
    "CREATE CONSTRAINT `x` FOR (n:`A`) REQUIRE (n.`id`) IS :: STRING MATCH",
    "CREATE INDEX `x` FOR (n:A) ON (n.a) OPTIONS {a: " + "[" * 20000,
    "CREATE RANGE INDEX `" + "x" * 70000 + "` FOR (n:A) ON (n.a)",
)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_creation_is_written_anew_from_its_parts(statement: str) -> None:
    made = cypher.parse(statement)
    assert cypher.parse(str(made)) == made
    assert made.name == statement.split("`")[1] or "``" in statement


@pytest.mark.parametrize("statement", NOT_CYPHER, ids=range(len(NOT_CYPHER)))
def test_what_creates_nothing_that_is_known_is_refused_in_a_manifest(statement: str) -> None:
    with pytest.raises(cypher.NotCypher):
        cypher.parse(statement)
    graph = {**manifest()["neo4j"], "indexes": [{"name": "x", "statement": statement}]}
    with pytest.raises(BackupError, match="can read"):
        parse(json.dumps(manifest(neo4j=graph)), "set x")


def test_a_statement_makes_what_it_is_named_for() -> None:
    for kind in ("constraints", "indexes"):
        for name, statement in (("other", STATEMENTS[0]), ("person_id", STATEMENTS[6])):
            graph = {**manifest()["neo4j"], kind: [{"name": name, "statement": statement}]}
            with pytest.raises(BackupError, match="makes another"):
                parse(json.dumps(manifest(neo4j=graph)), "set x")


NAMES = st.text(st.sampled_from("a`'\"\\u0060 \n;)]}({[:|.\x1bü"), min_size=1, max_size=12)
INVALID = re.compile(r"\\u", re.IGNORECASE)


@given(NAMES, st.lists(NAMES, min_size=1, max_size=3), st.lists(NAMES, min_size=1, max_size=3))
@settings(max_examples=1000)
def test_no_name_ends_its_quotes(name: str, labels: list[str], properties: list[str]) -> None:
    made = cypher.Creation("INDEX", name, "FULLTEXT", "node", tuple(labels), tuple(properties))
    if any(INVALID.search(each) for each in (name, *labels, *properties)):
        with pytest.raises(cypher.NotCypher):
            str(made)
        return
    assert cypher.parse(str(made)) == made
    # Without what is in quotes nothing is left but Cypher's own words.
    assert re.fullmatch(r"CREATE FULLTEXT INDEX N FOR \(n:N(\|N)*\) ON EACH \[n.N(, n.N)*\]", _unquoted(str(made)))


def _unquoted(statement: str) -> str:
    return re.sub(r"`(?:[^`]|``)+`", "N", statement)


@pytest.mark.parametrize(
    "entry",
    [
        {"id": SHA, "time": "2026-01-01T00:00:00Z", "paths": ["--password-command=touch /tmp/x #"]},
        {"id": SHA, "time": "2026-01-01T00:00:00Z", "paths": ["/a\n/b"]},
        {"id": SHA, "time": "2026-01-01T00:00:00Z", "paths": []},
        {"id": SHA, "time": "2026-01-01T00:00:00Z", "paths": None},
        {"id": "--help", "time": "2026-01-01T00:00:00Z", "paths": ["/stage"]},
        {"id": SHA, "time": "yesterday", "paths": ["/stage"]},
        {"id": SHA, "paths": ["/stage"]},
        {},
    ],
)
def test_a_snapshot_that_plinth_did_not_store_is_none(entry: dict[str, Any]) -> None:
    good = {"id": SHA, "time": "2026-01-01T00:00:00.123456789Z", "paths": ["/stage"], "tags": ["t", "complete"]}
    assert snapshot_of(good)
    assert snapshot_of(entry) is None


@given(st.text())
@example(CONTROL)
def test_nothing_is_printed_that_a_terminal_obeys(text: str) -> None:
    assert visible(text).isprintable()


@pytest.mark.parametrize("name", ["a/..", "../../x", "a?b", "a#b", "a%2Fb", "a b", "é", "\x1b[2J", "a\nb"])
def test_a_name_is_one_part_of_the_address_that_is_asked(name: str) -> None:
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        return httpx.Response(200, json={"result": True})

    node = Node("http://127.0.0.1:1")
    node._http = httpx.Client(base_url=node.url, transport=httpx.MockTransport(answer))
    node.call("DELETE", f"{collection_path(name)}/snapshots{_part(name)}?wait=true")
    path = asked[0].decode().partition("?")[0]
    assert [unquote(part) for part in path.split("/")] == ["", "collections", name, "snapshots", name]
    with pytest.raises(QdrantError):
        node.call("GET", f"/collections/{name}\x1b")


@pytest.mark.parametrize("name", ["", ".", "..", "\ud800"])
def test_a_name_that_no_address_holds_is_an_error_of_qdrants(name: str) -> None:
    for path in (collection_path, _part):
        with pytest.raises(QdrantError):
            path(name)
