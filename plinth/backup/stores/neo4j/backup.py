"""Back up Neo4j: read its nodes and relationships over Bolt, as of one moment.

The community edition has no online backup. A read sees what others commit during it, so bookmarks are compared: a
bookmark names the last committed transaction, and the read begins once that one is applied. If the bookmark after the
read differs, the data is not of one moment, and the read is repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from neo4j import READ_ACCESS, GraphDatabase, Session
from neo4j.exceptions import GqlError, Neo4jError
from pydantic import ValidationError

from plinth.backup.config import Neo4jStore, secret
from plinth.backup.manifest import Counted, Neo4jPart, Statement
from plinth.backup.session import BackupError, Work
from plinth.backup.set_paths import NODES, RELATIONSHIPS
from plinth.backup.stores.neo4j import jsonl_format
from plinth.errors import UserError

DIRECTORY = "neo4j"
PAUSES_S = (1, 5, 15, 30)
CONNECT_S = 30


_ZONED = {
    "time": "hour: x.hour, minute: x.minute, second: x.second",
    "datetime": "epochSeconds: x.epochSeconds",
}
_KINDS = {
    "date": "DATE",
    "localtime": "LOCAL TIME",
    "time": "ZONED TIME",
    "localdatetime": "LOCAL DATETIME",
    "datetime": "ZONED DATETIME",
    "duration": "DURATION",
}


def _written(kind: str) -> str:
    """Return Cypher that writes ``x`` so that the function of its kind reads it back."""
    return f"{{{_ZONED[kind]}, nanosecond: x.nanosecond, timezone: x.timezone}}" if kind in _ZONED else "toString(x)"


def _properties(of: str) -> str:
    """Return Cypher for the properties of ``of``: key, kind, value. The kind of a list ends in an s."""
    cases = "".join(
        f" WHEN '{name} NOT NULL' THEN [k, '{kind}', head([x IN [{of}[k]] | {_written(kind)}])]"
        f" WHEN 'LIST<{name} NOT NULL> NOT NULL' THEN [k, '{kind}s', [x IN {of}[k] | {_written(kind)}]]"
        for kind, name in _KINDS.items()
    )
    return f"[k IN keys({of}) | CASE valueType({of}[k]){cases} ELSE [k, null, {of}[k]] END]"


def restored(of: str) -> str:
    """Return Cypher that sets the properties of ``of`` from a `row`."""
    cases = "".join(f" WHEN '{kind}' THEN {kind}(p[2]) WHEN '{kind}s' THEN [x IN p[2] | {kind}(x)]" for kind in _KINDS)
    return f"SET {of} = row.properties FOREACH (p IN row.typed | SET {of}[p[0]] = CASE p[1]{cases} END)"


@contextmanager
def connect(store: Neo4jStore, access: str = READ_ACCESS) -> Iterator[Session]:
    """Yield a session of the server's default database."""
    with (
        GraphDatabase.driver(
            f"bolt://{store.host}:{store.port}",
            auth=(store.user, secret(store.password_file) or ""),
            connection_timeout=CONNECT_S,
            notifications_min_severity="OFF",
            telemetry_disabled=True,
        ) as driver,
        driver.session(default_access_mode=access) as session,
    ):
        yield session


def words(error: Exception) -> str:
    """Return the message of a driver's error, on one line."""
    said = error.message if isinstance(error, Neo4jError) else str(error)
    return " ".join((said or str(error)).split())


def take(work: Work, store: Neo4jStore) -> tuple[Neo4jPart | None, list[str]]:
    """Back up the graph; return its part of the manifest and a message for each failure."""
    work.say("taking neo4j")
    where = f"Neo4j at {store.host}:{store.port}"
    try:
        with connect(store) as session:
            for pause in (*PAUSES_S, None):
                if part := _of_one_moment(work, session):
                    return part, []
                work.say("neo4j was written to while it was read; reading it anew")
                if pause:
                    time.sleep(pause)
    except GqlError as error:
        said = f"{where} was not taken: {words(error)}"
    except TypeError as error:
        said = f"{where} was not taken: it holds {error}, which this version of Plinth cannot keep; report it."
    except ValidationError as error:
        said = f"{where} was not taken: {error.errors(include_url=False)[0]['msg']}; drop it, or report it."
    except UserError as error:
        said = str(error)
    else:
        said = (
            f"{where} was written to while it was read, {len(PAUSES_S) + 1} times in a row, so what was read is of no "
            "one moment; pause what writes to it, or move plinth:backup.schedule to where it is quiet."
        )
    for path in (NODES, RELATIONSHIPS):
        (work.stage / path).unlink(missing_ok=True)
    return None, [said]


def version(session: Session) -> str:
    """Return the version of the server."""
    return str(session.run("CALL dbms.components() YIELD versions").single(strict=True)["versions"][0])


def marked(session: Session) -> int:
    """Count the nodes that still have the label of a restore."""
    return int(session.run(f"MATCH (n:`{jsonl_format.MARK}`) RETURN count(n) AS n").single(strict=True)["n"])


def schema(session: Session, of: str) -> tuple[Statement, ...]:
    """Return the statements that create its `CONSTRAINTS` or `INDEXES`, without the indexes of constraints."""
    own = "WHERE type <> 'LOOKUP' AND owningConstraint IS NULL" if of == "INDEXES" else ""
    owner = ", owningConstraint" if of == "INDEXES" else ""
    rows = session.run(f"SHOW {of} YIELD name, type, createStatement{owner} {own}")
    found = (Statement(name=row["name"], statement=row["createStatement"]) for row in rows)
    return tuple(sorted(found, key=lambda each: each.name))


def nodes(session: Session, label: str = "") -> Iterator[bytes]:
    """Yield the lines of all nodes, or of those with a label in Cypher."""
    for row in session.run(
        f"MATCH (n{label}) RETURN coalesce(n.`{jsonl_format.KEY}`, elementId(n)), labels(n), {_properties('n')}"
    ):
        yield jsonl_format.node_line(*row)


def relationships(session: Session, label: str = "") -> Iterator[bytes]:
    """Yield the lines of all relationships, or of those between nodes with a label in Cypher."""
    for row in session.run(
        f"MATCH (a{label})-[r]->(b{label}) RETURN type(r), coalesce(a.`{jsonl_format.KEY}`, elementId(a)), "
        f"coalesce(b.`{jsonl_format.KEY}`, elementId(b)), {_properties('r')}"
    ):
        yield jsonl_format.relationship_line(*row)


def tallied(lines: Iterable[bytes], keep: Callable[[bytes], object]) -> jsonl_format.Tally:
    """Pass each line to ``keep`` and count it."""
    tally = jsonl_format.Tally()
    for line in lines:
        tally.add(line)
        keep(line)
    return tally


def counted(tally: jsonl_format.Tally) -> tuple[Counted, ...]:
    """Return the counts of a tally."""
    return tuple(Counted(names=names, count=count) for names, count in sorted(tally.counts.items()))


def _of_one_moment(work: Work, session: Session) -> Neo4jPart | None:
    """Return the graph, or None where something was written during the read."""
    before = _bookmark(session)
    try:
        part = _read(work, session)
    except Neo4jError:
        if _bookmark(session) == before:
            raise
        return None  # a node was deleted during the read
    return part if _bookmark(session) == before else None


def _bookmark(session: Session) -> frozenset[str]:
    """Return the last committed transaction; the next read of this session begins once it is applied."""
    session.run("RETURN 1").consume()
    return session.last_bookmarks().raw_values


def _read(work: Work, session: Session) -> Neo4jPart:
    if count := marked(session):
        raise BackupError(
            f"Neo4j was not taken: {count} of its nodes are of a restore that has not ended; run that restore again, "
            "it goes on."
        )
    (work.stage / DIRECTORY).mkdir(exist_ok=True)
    with (work.stage / NODES).open("wb") as file:
        of_nodes = tallied(nodes(session), file.write)
    with (work.stage / RELATIONSHIPS).open("wb") as file:
        of_relationships = tallied(relationships(session), file.write)
    return Neo4jPart(
        version=version(session),
        nodes_path=NODES,
        relationships_path=RELATIONSHIPS,
        nodes=counted(of_nodes),
        relationships=counted(of_relationships),
        nodes_checksum=of_nodes.checksum,
        relationships_checksum=of_relationships.checksum,
        constraints=schema(session, "CONSTRAINTS"),
        indexes=schema(session, "INDEXES"),
    )
