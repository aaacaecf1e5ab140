"""The paths within a set: the few forms that Plinth writes, each in its store's folder. Any other is refused."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator

# The characters that `quote` keeps, or a digest in place of a name that cannot be a file name.
_QUOTED = r"(?:[A-Za-z0-9_.~-]|%[0-9A-F]{2})+"
_FOLDER = rf"(?:(?!\.{{1,2}}/){_QUOTED}|=[0-9a-f]{{64}})"
# The longest file name, in bytes.
LONGEST = 240
GLOBALS = "postgres/globals.sql"
RDB = "redis/dump.rdb"
NODES, RELATIONSHIPS = "neo4j/nodes.jsonl", "neo4j/relationships.jsonl"
GRAFANA = "grafana/grafana.db"
_FORMS = {
    "a shard of Qdrant": re.compile(rf"qdrant/{_FOLDER}/[0-9]{{1,10}}\.snapshot"),
    "a dump of Postgres": re.compile(rf"postgres/(?:{_QUOTED}|=[0-9a-f]{{64}})\.dump"),
    "the roles of Postgres": re.compile(re.escape(GLOBALS)),
    "Redis": re.compile(re.escape(RDB)),
    "Neo4j's nodes": re.compile(re.escape(NODES)),
    "Neo4j's relationships": re.compile(re.escape(RELATIONSHIPS)),
    "Grafana": re.compile(re.escape(GRAFANA)),
}


def folder(name: str) -> str:
    """Return a unique file or folder name for ``name``."""
    quoted = quote(name, safe="")
    if not quoted or quoted.startswith(".") or len(quoted) > LONGEST:
        return "=" + hashlib.sha256(name.encode()).hexdigest()
    return quoted


def is_form(path: str, what: str) -> bool:
    """Whether a path has the form of a file of ``what``."""
    return (
        len(path) <= 2 * LONGEST
        and all(len(part) <= 255 for part in path.split("/"))
        and bool(_FORMS[what].fullmatch(path))
    )


def _of(what: str) -> AfterValidator:
    def check(path: str) -> str:
        if not is_form(path, what):
            raise ValueError(f"{path[:80]!a} is no path of {what} in a set")
        return path

    return AfterValidator(check)


def _any(path: str) -> str:
    if not any(is_form(path, what) for what in _FORMS):
        raise ValueError(f"{path[:80]!a} is no path of a set")
    return path


AnyPath = Annotated[str, AfterValidator(_any)]
ShardPath = Annotated[str, _of("a shard of Qdrant")]
DumpPath = Annotated[str, _of("a dump of Postgres")]
GlobalsPath = Annotated[str, _of("the roles of Postgres")]
RdbPath = Annotated[str, _of("Redis")]
NodesPath = Annotated[str, _of("Neo4j's nodes")]
RelationshipsPath = Annotated[str, _of("Neo4j's relationships")]
GrafanaPath = Annotated[str, _of("Grafana")]
