"""Backups of Neo4j: every type comes back, nothing of two moments is kept, a killed restore ends whole."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from neo4j import WRITE_ACCESS
from neo4j.exceptions import Neo4jError

from plinth.backup import drill, restore
from plinth.backup import run as backup_run
from plinth.backup.config import Neo4jStore
from plinth.backup.manifest import Neo4jPart
from plinth.backup.restore_source import Wish
from plinth.backup.session import BackupError, Work, working
from plinth.backup.stores.neo4j import backup as taking
from plinth.backup.stores.neo4j import jsonl_format
from plinth.backup.temporary import instances
from plinth.programs.executables import find
from plinth.programs.neo4j import PROGRAM
from tests.conftest import free_port
from tests.faults.test_backup_restore import RESTORE
from tests.faults.world import Backups, killed_at

pytestmark = pytest.mark.requirement("S1-06")
FOUND = find(PROGRAM)
real = pytest.mark.skipif(FOUND is None, reason="no neo4j binary: set PLINTH_NEO4J or put it on PATH")

EVERYTHING = (Path(__file__).parent / "everything.cypher").read_text().split(";\n")
ROWS = 2500
MANY = (
    "CREATE CONSTRAINT row FOR (n:Row) REQUIRE n.n IS UNIQUE",
    f"UNWIND range(1, {ROWS}) AS n CREATE (:Row {{n: n, at: datetime({{epochSeconds: n}})}})",
    f"MATCH (a:Row) MATCH (b:Row {{n: 1 + a.n % {ROWS}}}) CREATE (a)-[:NEXT {{n: a.n}}]->(b)",
)
# All that a server itself says of its content, without the ids that it gives.
TOLD = "[k IN keys({0}) | [k, valueType({0}[k]), toStringOrNull({0}[k])]]"
CONTENT = "MATCH (n) OPTIONAL MATCH (n)-[r]->(m) RETURN labels(n) AS a, type(r) AS b, labels(m) AS c, " + ", ".join(
    f"{TOLD.format(of)} AS {of}" for of in "nrm"
)


@dataclass
class Graph:
    """A running Neo4j."""

    store: Neo4jStore

    def stores(self) -> dict[str, Any]:
        return {"neo4j": self.store.model_dump(mode="json")}

    def run(self, *statements: str) -> list[dict[str, Any]]:
        with taking.connect(self.store, WRITE_ACCESS) as session:
            for statement in filter(str.strip, statements):
                rows = session.run(statement).data()
        return rows

    def content(self) -> list[str]:
        rows = [[sort(value) for value in row.values()] for row in self.run(CONTENT)]
        schema = [self.run(f"SHOW {of} YIELD name, createStatement") for of in ("CONSTRAINTS", "INDEXES")]
        return sorted(map(repr, [*rows, *(row for rows in schema for row in rows)]))

    def empty(self) -> None:
        self.run("MATCH (n) DETACH DELETE n")
        for kind, of in (("CONSTRAINT", "CONSTRAINTS"), ("INDEX", "INDEXES WHERE type <> 'LOOKUP'")):
            names = [row["name"].replace("`", "``") for row in self.run(f"SHOW {of}")]
            self.run("RETURN 1", *(f"DROP {kind} `{name}`" for name in names))


def sort(value: Any) -> Any:
    return sorted(map(sort, value), key=repr) if isinstance(value, list) else value


@pytest.fixture(scope="module")
def servers(place: Path) -> Iterator[tuple[Graph, Graph]]:
    assert FOUND is not None
    with ExitStack() as stack:
        first, second = (Graph(stack.enter_context(instances.neo4j(place / name))) for name in ("graph-a", "graph-b"))
        yield first, second


@pytest.fixture
def graphs(servers: tuple[Graph, Graph]) -> tuple[Graph, Graph]:
    """Two servers with nothing in them."""
    for server in servers:
        server.empty()
    return servers


@pytest.fixture
def stocked_graph(graphs: tuple[Graph, Graph], place: Path, request: pytest.FixtureRequest) -> Backups:
    """A set of the first server, which holds rows in a ring."""
    graphs[0].run(*MANY)
    made = Backups(place / f"neo4j-{len(list(place.iterdir()))}", graphs[0])
    assert backup_run.run(made.config, made.say).manifest.complete
    return made


def into(source: Backups, other: Graph, wish: Wish) -> list[str]:
    return restore.run(source.config, Backups(source.directory / "there", other).config, wish, source.say).done


@real
def test_every_type_name_and_shape_comes_back_with_the_schema(graphs: tuple[Graph, Graph], place: Path) -> None:
    graphs[0].run(*EVERYTHING)
    before = graphs[0].content()
    made = Backups(place / "everything", graphs[0])
    manifest = backup_run.run(made.config, made.say).manifest
    assert manifest.stores == {"neo4j": "ok"}
    assert made.sets()[0]["nodes"] == 5
    assert "is as it was saved" in made.call("verify")
    drilled = drill.run(made.config, made.say)
    assert (drilled.result, drilled.problems, drilled.unproven) == ("ok", {"neo4j": ()}, {})
    assert into(made, graphs[1], Wish()) == ["neo4j: 5 nodes and 5 relationships are restored, with 2 constraints."]
    assert graphs[1].content() == before == graphs[0].content()
    with pytest.raises(Neo4jError, match="already exists"):
        graphs[1].run("CREATE (:Person {id: 1})")


@real
def test_live_data_is_replaced_only_when_that_is_said(stocked_graph: Backups, graphs: tuple[Graph, Graph]) -> None:
    there, live = graphs[0].content(), graphs[1]
    live.run("CREATE INDEX mine FOR (n:Mine) ON (n.n)")
    with pytest.raises(BackupError, match=r"indexes that the set has not \(mine\)\. Nothing was touched"):
        into(stocked_graph, live, Wish())
    live.run("CREATE (a:Mine {n: 1})-[:OWN]->(a), (:Row {n: 1})")
    before = live.content()
    with pytest.raises(BackupError, match=r"Neo4j holds 2 nodes\. Nothing was touched"):
        into(stocked_graph, live, Wish())
    assert "one database" in into(stocked_graph, live, Wish(beside=True))[0]
    assert live.content() == before
    into(stocked_graph, live, Wish(replace=True))
    assert live.content() == there


@real
def test_a_restore_that_is_killed_at_any_step_goes_on_and_ends_whole(
    stocked_graph: Backups, graphs: tuple[Graph, Graph]
) -> None:
    there = Backups(stocked_graph.directory / "there", graphs[1])
    command = [sys.executable, "-c", RESTORE, str(stocked_graph.file), str(there.file)]
    for step in ("neo4j: 1000 nodes", "neo4j: 2000 relationships", "constraints and indexes", "comparing", "releasing"):
        killed_at(step, command)
        stocked_graph.listed_when_free()
        if step == "comparing":
            half, said = taken(graphs[1], stocked_graph)
            assert half is None
            assert "of a restore that has not ended" in said[0]
            graphs[1].run("CREATE (:Mine)")
            with pytest.raises(BackupError, match="Neo4j holds 1 nodes"):
                into(stocked_graph, graphs[1], Wish())
            graphs[1].run("MATCH (n:Mine) DELETE n")
    into(stocked_graph, graphs[1], Wish())
    assert graphs[1].content() == graphs[0].content()


def taken(server: Graph, made: Backups) -> tuple[Neo4jPart | None, list[str]]:
    with working(made.config, made.say) as work:
        work.stage.mkdir(parents=True, exist_ok=True)
        return taking.take(work, server.store)


@real
def test_what_is_written_meanwhile_is_read_anew_or_refused(
    stocked_graph: Backups, graphs: tuple[Graph, Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()

    def write() -> None:
        with taking.connect(graphs[0].store, WRITE_ACCESS) as session:
            while not stop.is_set():
                session.run("CREATE (:Debit)<-[:OF]-(:Pair)-[:OF]->(:Credit)").consume()
                session.run("MATCH (n:Pair) WITH n LIMIT 1 MATCH (n)--(m) DETACH DELETE n, m").consume()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        monkeypatch.setattr(taking, "PAUSES_S", (0.01, 0.01))
        part, said = taken(graphs[0], stocked_graph)
        assert part is None
        assert "3 times in a row" in said[0]
        assert "pause what writes to it" in said[0]
        assert not list((stocked_graph.work / "stage" / "neo4j").iterdir())
        monkeypatch.setattr(taking, "PAUSES_S", (0.01, 5, 5))
        threading.Timer(1, stop.set).start()
        part, said = taken(graphs[0], stocked_graph)
    finally:
        stop.set()
        writer.join()
    assert (said, stocked_graph.progress[-1]) == ([], "neo4j was written to while it was read; reading it anew")
    assert part is not None
    found = {each.names: each.count for each in part.nodes}
    assert found.pop(("Row",)) == ROWS
    assert len(set(found.values())) <= 1


NODES = [jsonl_format.node_line(str(n), ["Row"], [["n", None, n]]) for n in range(10)]
LINKS = [jsonl_format.relationship_line("NEXT", str(n), str((n + 1) % 10), []) for n in range(10)]


def saved(lost: int) -> Callable[[Work, Neo4jStore], tuple[Neo4jPart, list[str]]]:
    """A taking that writes known lines where no server is, without the last ``lost`` nodes."""

    def write(work: Work, _: Neo4jStore) -> tuple[Neo4jPart, list[str]]:
        (work.stage / "neo4j").mkdir()
        (work.stage / taking.NODES).write_bytes(b"".join(NODES[: 10 - lost]))
        (work.stage / taking.RELATIONSHIPS).write_bytes(b"".join(LINKS))
        of_nodes, of_links = (taking.tallied(each, lambda _: None) for each in (NODES, LINKS))
        return Neo4jPart(
            version="5.26.10",
            nodes_path=taking.NODES,
            relationships_path=taking.RELATIONSHIPS,
            nodes=taking.counted(of_nodes),
            relationships=taking.counted(of_links),
            nodes_checksum=of_nodes.checksum,
            relationships_checksum=of_links.checksum,
            constraints=(),
            indexes=(),
        ), []

    return write


@pytest.fixture
def alone(place: Path) -> Backups:
    """Backups of a Neo4j that does not answer."""
    password = place / "neo4j-password"
    password.write_text("password")
    store = Neo4jStore(host="127.0.0.1", port=free_port(), password_file=password)
    return Backups(place / f"alone-{len(list(place.iterdir()))}", Graph(store))


def test_a_drill_without_a_neo4j_reads_its_files_and_says_that_this_is_all(
    alone: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill, "find", lambda program: None)
    monkeypatch.setattr(taking, "take", saved(lost=0))
    backup_run.run(alone.config, alone.say)
    drilled = drill.run(alone.config, alone.say)
    assert (drilled.result, drilled.problems) == ("ok", {"neo4j": ()})
    assert "10 nodes and 10 relationships as they were saved, and were restored nowhere" in drilled.unproven["neo4j"]
    assert alone.state.drill is not None
    assert alone.state.drill.stores == {"neo4j": "incomplete"}
    assert "PLINTH_NEO4J" in alone.state.drill.detail


def test_a_drill_finds_files_that_do_not_hold_what_the_manifest_says(
    alone: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "take", saved(lost=1))
    backup_run.run(alone.config, alone.say)
    drilled = drill.run(alone.config, alone.say)
    assert (drilled.result, drilled.problems) == ("failed", {"neo4j": ("9 nodes and not 10",)})


def test_a_neo4j_that_is_down_makes_the_set_incomplete(alone: Backups, stock: Backups) -> None:
    stock.settings |= alone.live.stores()
    manifest = backup_run.run(stock.config, stock.say).manifest
    assert manifest.stores == {"qdrant": "ok", "redis": "ok", "neo4j": "failed", "postgres": "ok"}
    assert f"Neo4j at 127.0.0.1:{stock.settings['neo4j']['port']} was not taken" in manifest.failures[0]
    assert not [piece for piece in manifest.pieces if piece.path.startswith("neo4j")]
