"""Restore Neo4j into the one database of the community edition; each node has a label until all is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from neo4j import WRITE_ACCESS, Session

from plinth.backup.config import Neo4jStore
from plinth.backup.manifest import Neo4jPart, Statement
from plinth.backup.restore_source import DONE, Source, Wish
from plinth.backup.session import BackupError, Say
from plinth.backup.stores.neo4j import cypher, jsonl_format
from plinth.backup.stores.neo4j.backup import (
    connect,
    counted,
    marked,
    nodes,
    relationships,
    restored,
    schema,
    tallied,
    version,
)
from plinth.system.versions import numbers

# The first version that accepts labels and types as parameters.
OLDEST = "5.26"
DELETED_AT_ONCE = 10_000
INDEXED_IN_S = 24 * 3600
KINDS = {"CONSTRAINTS": "CONSTRAINT", "INDEXES": "INDEX"}
MARKED = f":`{jsonl_format.MARK}`"
LOADED = "loaded"
STORE = "neo4j"
NO_NAME = "Neo4j's community edition has one database, and no name beside it to restore under."

_NODES = f"UNWIND $rows AS row CREATE (n:$(row.labels)) {restored('n')} SET n{MARKED}, n.`{jsonl_format.KEY}` = row.id"
_RELATIONSHIPS = (
    f"UNWIND $rows AS row MATCH (a{MARKED} {{`{jsonl_format.KEY}`: row.start}}) "
    f"MATCH (b{MARKED} {{`{jsonl_format.KEY}`: row.end}}) "
    f"CREATE (a)-[r:$(row.type)]->(b) {restored('r')}"
)


def refusals(source: Source, part: Neo4jPart, store: Neo4jStore, wish: Wish) -> list[str]:
    """Return why the set may not be restored as requested, one message for each reason; nothing is changed."""
    if wish.beside:
        return [NO_NAME] if STORE in wish.stores else []
    if source.made().get(STORE) == DONE:
        return []
    with connect(store) as session:
        if said := too_old(version(session), part.version):
            return [said]
        if wish.replace or source.made().get(STORE) == LOADED:
            return []
        held = int(session.run("MATCH (n) RETURN count(n) AS n").single(strict=True)["n"]) - marked(session)
        beside = [each.name for of in KINDS for each in _beside(session, part, of)]
    if held:
        return [f"Neo4j holds {held} nodes."]
    return [f"Neo4j has constraints or indexes that the set has not ({', '.join(beside)})."] if beside else []


def too_old(server: str, saved: str) -> str | None:
    """Return a message where a server may be too old for what the set holds."""
    if numbers(server)[:2] >= max(numbers(saved)[:2], numbers(OLDEST)):
        return None
    return f"Neo4j is {server} and the set was made by {saved}: it needs {max(saved, OLDEST, key=numbers)} or newer."


def restore(source: Source, part: Neo4jPart, store: Neo4jStore, wish: Wish) -> list[str]:
    """Restore the graph and its schema, and return a message about it."""
    if wish.beside:
        return [f"neo4j: left out. {NO_NAME}"]
    word = source.made().get(STORE)
    if word == DONE:
        return ["neo4j: it was restored before."]
    files = source.fetch(part.nodes_path)[0], source.fetch(part.relationships_path)[0]
    with connect(store, WRITE_ACCESS) as session:
        if word != LOADED:
            if wish.replace:
                clear(session, part, source.work.say)
            rebuild(session, part, *files, source.work.say)
            source.making(STORE, LOADED)
        release(session, source.work.say)
        source.making(STORE, DONE)
    return [f"neo4j: {total(part)} are restored, with {len(part.constraints)} constraints."]


def total(part: Neo4jPart) -> str:
    """Return how much the set holds, for display."""
    return (
        f"{sum(each.count for each in part.nodes)} nodes and {sum(each.count for each in part.relationships)} "
        "relationships"
    )


def clear(session: Session, part: Neo4jPart, say: Say) -> None:
    """Delete all data, and the constraints and indexes that the set does not have."""
    say("emptying neo4j")
    _empty(session, "")
    for of, kind in KINDS.items():
        for each in _beside(session, part, of):
            _run(session, f"DROP {kind} {cypher.quoted(each.name)}")


def rebuild(session: Session, part: Neo4jPart, nodes_file: Path, relationships_file: Path, say: Say) -> None:
    """Create the saved graph with the label of the restore, and replace what an earlier attempt has created."""
    _empty(session, MARKED)
    _run(
        session,
        f"CREATE CONSTRAINT `{jsonl_format.MARK}` IF NOT EXISTS FOR (n{MARKED}) "
        f"REQUIRE n.`{jsonl_format.KEY}` IS UNIQUE",
    )
    _fill(session, _NODES, nodes_file, lambda done: say(f"restoring neo4j: {done} nodes"))
    _fill(session, _RELATIONSHIPS, relationships_file, lambda done: say(f"restoring neo4j: {done} relationships"))
    say("restoring neo4j: constraints and indexes")
    for of, saved in (("CONSTRAINTS", part.constraints), ("INDEXES", part.indexes)):
        there = set(schema(session, of))
        for statement in saved:
            if statement not in there:
                _run(session, str(cypher.parse(statement.statement)))
    session.run("CALL db.awaitIndexes($seconds)", seconds=INDEXED_IN_S).consume()
    say("comparing neo4j")
    if wrong := differences(session, part):
        raise BackupError(
            f"Neo4j did not come back as it was saved ({'; '.join(wrong)}); run the restore again, it begins anew, and "
            "see that nobody writes to it meanwhile."
        )


def differences(session: Session, part: Neo4jPart) -> list[str]:
    """Return how the labelled graph differs from the saved one."""
    said = compared(part, nodes(session, MARKED), relationships(session, MARKED))
    for of, saved in (("CONSTRAINTS", part.constraints), ("INDEXES", part.indexes)):
        lacking = set(saved) - set(schema(session, of))
        said += [f"{each.name} is not among its {of.lower()}" for each in sorted(lacking, key=lambda each: each.name)]
    return said


def compared(part: Neo4jPart, of_nodes: Iterable[bytes], of_relationships: Iterable[bytes]) -> list[str]:
    """Return how these lines of nodes and relationships differ from the saved ones."""
    said = []
    for what, lines, saved, checksum in (
        ("nodes", of_nodes, part.nodes, part.nodes_checksum),
        ("relationships", of_relationships, part.relationships, part.relationships_checksum),
    ):
        try:
            tally = tallied(lines, lambda _: None)
        except (ValueError, LookupError, TypeError):
            return [f"the lines of {what} are none that this version writes"]
        wanted = sum(each.count for each in saved)
        if tally.count != wanted:
            said.append(f"{tally.count} {what} and not {wanted}")
        elif counted(tally) != saved:
            said.append(f"{what} under other names than they had")
        elif tally.checksum != checksum:
            said.append(f"{what} with other content than they had")
    return said


def release(session: Session, say: Say) -> None:
    """Remove the label of the restore, and the constraint that made its ids unique."""
    say("releasing neo4j")
    _until_none(
        session, f"MATCH (n{MARKED}) WITH n LIMIT $most REMOVE n{MARKED}, n.`{jsonl_format.KEY}` RETURN count(n) AS n"
    )
    _run(session, f"DROP CONSTRAINT `{jsonl_format.MARK}` IF EXISTS")


def _beside(session: Session, part: Neo4jPart, of: str) -> list[Statement]:
    """Return the constraints or indexes of the server that the set does not have."""
    own = {*part.constraints, *part.indexes}
    return [each for each in schema(session, of) if each not in own and each.name != jsonl_format.MARK]


def _empty(session: Session, label: str) -> None:
    """Delete relationships first: a node may have more of them than one transaction should hold."""
    _until_none(session, f"MATCH (n{label})-[r]-() WITH DISTINCT r LIMIT $most DELETE r RETURN count(r) AS n")
    _until_none(session, f"MATCH (n{label}) WITH n LIMIT $most DELETE n RETURN count(n) AS n")


def _until_none(session: Session, statement: str) -> None:
    while session.run(statement, most=DELETED_AT_ONCE).single(strict=True)["n"]:
        pass


def _fill(session: Session, statement: str, file: Path, say: Callable[[int], None]) -> None:
    done = 0
    for batch in jsonl_format.batches(lines(file)):
        try:
            rows = [jsonl_format.row(line) for line in batch]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise BackupError("The set's lines of Neo4j are none that this version writes.") from None
        session.run(statement, rows=rows).consume()
        done += len(batch)
        say(done)


def lines(file: Path) -> Iterator[bytes]:
    """Yield the lines of a saved file."""
    with file.open("rb") as opened:
        yield from opened


def _run(session: Session, statement: str) -> None:
    session.run(statement).consume()
