"""The manifest of a backup set. It is written last, so that a set without a manifest is not valid."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from plinth.backup.session import BackupError
from plinth.backup.set_paths import (
    AnyPath,
    DumpPath,
    GlobalsPath,
    GrafanaPath,
    NodesPath,
    RdbPath,
    RelationshipsPath,
    ShardPath,
)
from plinth.backup.stores.neo4j import cypher
from plinth.backup.stores.postgres.sql_tokens import name_fault
from plinth.status_files.backup_runs import Result
from plinth.system.strict_model import StrictModel

NAME = "manifest.json"
_BLOCK, _CHUNK = 4096, 1 << 20
_ZEROS = bytes(_BLOCK)


class Range(StrictModel):
    """A count before and after its part was backed up; both are equal where nothing was written in between."""

    low: int
    high: int

    @classmethod
    def of(cls, *counts: int) -> Range:
        """Return the range that spans these counts."""
        return cls(low=min(counts), high=max(counts))

    def holds(self, count: int) -> bool:
        """Whether a restored count lies within the range."""
        return self.low <= count <= self.high


class Piece(StrictModel):
    """A file of the set: its path within the set, its bytes and its SHA-256.

    ``data`` are the bytes outside of blocks of zeros, which are the ones that a sparse file stores; None in sets that
    do not record it.
    """

    path: AnyPath
    size: int = Field(ge=0)
    data: int | None = Field(None, ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Question(StrictModel):
    """A search with its exact top 10. ``using`` is the name of the vector, empty for the only one."""

    using: str = ""
    query: Any
    filter: dict[str, Any] | None = None
    ids: tuple[str | int, ...]
    scores: tuple[float, ...]


class Sample(StrictModel):
    """A point, and the SHA-256 of its vectors and payload."""

    id: str | int
    sha256: str


class Shard(StrictModel):
    """One shard: its id, shard key, the peer it was read from, its file, and the time."""

    id: int
    key: str | int | None = None
    peer: int
    path: ShardPath
    taken_at: float


def _described(answer: dict[str, Any]) -> dict[str, Any]:
    """Require the sections that a collection is created from; none are needed where a shard was unreachable."""
    fields = answer.get("payload_schema") or {}
    sections = answer.get("config", {"params": {}})
    if not isinstance(sections, dict) or not isinstance(sections.get("params"), dict):
        raise ValueError("config.params is missing")
    if not isinstance(fields, dict) or not all(
        isinstance(each, dict) and "data_type" in each for each in fields.values()
    ):
        raise ValueError("payload_schema lacks a data_type")
    if answer and "config" not in answer:
        raise ValueError("config is missing")
    return answer


class Collection(StrictModel):
    """One collection as it was saved.

    ``described`` is the answer of `GET /collections/{name}`. ``points`` is None where they could not be counted.
    """

    name: str = Field(min_length=1)
    described: Annotated[dict[str, Any], AfterValidator(_described)]
    points: Range | None = None
    shard_count: int
    shards: tuple[Shard, ...]
    questions: tuple[Question, ...] = ()
    samples: tuple[Sample, ...] = ()


class QdrantPart(StrictModel):
    """The Qdrant part of a set. ``engine`` names the server whose format the files have."""

    engine: Literal["server", "embedded"]
    version: str
    peers: dict[int, str]
    aliases: dict[str, str]
    collections: tuple[Collection, ...]


def _postgres_name(name: str) -> str:
    if fault := name_fault(name):
        raise ValueError(f"{name!r} is no name of Postgres: {fault}")
    return name


PostgresName = Annotated[str, AfterValidator(_postgres_name)]
# How the checksums of tables are computed: by SQL over casts to text, or by Plinth from the output of COPY.
ChecksumKind = Literal["sql-md5", "copy-blake2b"]


class Table(StrictModel):
    """The row count of a table, and a checksum that does not depend on the order of the rows."""

    schema_name: str
    name: str
    rows: int
    checksum: str


class DatabasePart(StrictModel):
    """One database. ``settings`` are those of `ALTER DATABASE ... SET`, by role where they belong to one.

    ``live_bytes`` is its size in the server; None in sets that do not record it. Sets without a ``checksum_kind`` were
    written before a second kind existed.
    """

    name: PostgresName
    owner: PostgresName
    encoding: str
    collate: str
    ctype: str
    path: DumpPath
    live_bytes: int | None = None
    tables: tuple[Table, ...]
    checksum_kind: ChecksumKind = "sql-md5"
    extensions: dict[str, str]
    settings: tuple[tuple[str | None, str], ...] = ()
    grants: tuple[tuple[str, str], ...] = ()


class PostgresPart(StrictModel):
    """The Postgres part of a set."""

    version: str
    globals_path: GlobalsPath
    databases: tuple[DatabasePart, ...]


class RedisPart(StrictModel):
    """The Redis part of a set: keys by database, of which ``expiring`` may be gone later.

    ``memory`` is the memory of the server's data in bytes; None in sets that do not record it.
    """

    version: str
    path: RdbPath
    memory: int | None = None
    keys: dict[int, Range]
    expiring: dict[int, int]
    samples: dict[int, dict[str, str]]


class Counted(StrictModel):
    """The number of nodes with exactly these labels, or of relationships of this type."""

    names: tuple[str, ...]
    count: int


class Statement(StrictModel):
    """A constraint or an index: its name, and the Cypher that creates it, as the server shows it.

    The Cypher is compared with what a server shows and never run. A restore runs only what
    :func:`plinth.backup.stores.neo4j.cypher.parse` reads in it.
    """

    name: str
    statement: str


class Neo4jPart(StrictModel):
    """The Neo4j part of a set, with order-independent checksums over all nodes and relationships."""

    version: str
    nodes_path: NodesPath
    relationships_path: RelationshipsPath
    nodes: tuple[Counted, ...]
    relationships: tuple[Counted, ...]
    nodes_checksum: str
    relationships_checksum: str
    constraints: tuple[Statement, ...]
    indexes: tuple[Statement, ...]

    @model_validator(mode="after")
    def _are_creations(self) -> Self:
        for what, statements in (("CONSTRAINT", self.constraints), ("INDEX", self.indexes)):
            for each in statements:
                made = cypher.parse(each.statement)
                if (made.what, made.name) != (what, each.name):
                    raise ValueError(f"the statement of {each.name[:80]!a} makes another")
        return self


class GrafanaPart(StrictModel):
    """The Grafana part of a set."""

    path: GrafanaPath


class Manifest(StrictModel):
    """The manifest of a whole set. ``failures`` are messages; a set without any is complete."""

    version: Literal[1] = 1
    name: str
    plinth: str
    revision: str | None = None
    began_at: float
    ended_at: float
    tools: dict[str, str] = Field(default_factory=dict)
    stores: dict[str, Result]
    failures: tuple[str, ...] = ()
    not_taken: dict[str, str] = Field(default_factory=dict)
    qdrant: QdrantPart | None = None
    postgres: PostgresPart | None = None
    redis: RedisPart | None = None
    neo4j: Neo4jPart | None = None
    grafana: GrafanaPart | None = None
    pieces: tuple[Piece, ...]

    @model_validator(mode="after")
    def _one_piece_each(self) -> Self:
        """Require that each file named by a part is listed once, and belongs to that part alone."""
        there = {piece.path for piece in self.pieces}
        named = self._paths()
        if len(there) < len(self.pieces) or len(set(named)) < len(named):
            raise ValueError("a path is there twice")
        if lacking := sorted(set(named) - there):
            raise ValueError(f"{lacking[0]} is no piece of it")
        return self

    def _paths(self) -> list[str]:
        paths = [shard.path for each in (self.qdrant.collections if self.qdrant else ()) for shard in each.shards]
        if self.postgres:
            paths += [self.postgres.globals_path, *(database.path for database in self.postgres.databases)]
        paths += [part.path for part in (self.redis, self.grafana) if part]
        return paths + ([self.neo4j.nodes_path, self.neo4j.relationships_path] if self.neo4j else [])

    @property
    def complete(self) -> bool:
        """Whether the set holds everything that was planned, verified."""
        return not self.failures

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(piece.size for piece in self.pieces)

    @property
    def data(self) -> int:
        """Return the bytes of data in all files: without the zeros of sparse files, where they were counted."""
        return sum(piece.size if piece.data is None else piece.data for piece in self.pieces)

    def piece(self, path: str) -> Piece:
        """Return the file at a path."""
        return next(piece for piece in self.pieces if piece.path == path)


def parse(text: str, where: str) -> Manifest:
    """Parse a manifest. Raises :class:`BackupError` for a format that this version cannot read."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BackupError(
            f"The manifest of {where} is none that this version can read ({key}: {first['msg']}); "
            "restore it with the version of Plinth that wrote it."
        ) from None


class Measure:
    """The size, data bytes and SHA-256 of a file, updated chunk by chunk as it is written or read."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._size = self._zeros = 0

    def add(self, chunk: bytes | bytearray) -> None:
        """Add the next bytes of the file."""
        self._digest.update(chunk)
        self._size += len(chunk)
        if chunk.count(0) >= _BLOCK:
            blocks = range(0, len(chunk), _BLOCK)
            self._zeros += sum(_BLOCK for at in blocks if chunk[at : at + _BLOCK] == _ZEROS)

    def piece(self, path: str) -> Piece:
        """Return the file as an entry of the manifest."""
        return Piece(path=path, size=self._size, data=self._size - self._zeros, sha256=self._digest.hexdigest())


def pieces_below(root: Path, measured: Mapping[str, Piece]) -> tuple[Piece, ...]:
    """Return every file of a staged set with its hash. Files that are not yet ``measured`` are hashed in parallel."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    left = [path for path in files if path.relative_to(root).as_posix() not in measured]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashed = {each.path: each for each in pool.map(lambda path: piece(path, root), left)}
    return tuple({**measured, **hashed}[path.relative_to(root).as_posix()] for path in files)


def piece(path: Path, root: Path) -> Piece:
    """Hash one file and return its manifest entry."""
    measure = Measure()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            measure.add(chunk)
    return measure.piece(path.relative_to(root).as_posix())


def differences(listed: dict[str, int], wanted: Iterable[Piece]) -> list[str]:
    """Compare a repository's listing (bytes by path) with the expected files.

    Returns a message for each file that is missing, unexpected, or of another size.
    """
    sizes = {piece.path: piece.size for piece in wanted}
    lacking = [f"{path} is missing" for path in sorted(sizes.keys() - listed.keys())]
    beside = [f"{path} is not in the manifest" for path in sorted(listed.keys() - sizes.keys())]
    other = [
        f"{path} has {listed[path]} bytes and not {size}"
        for path, size in sorted(sizes.items())
        if path in listed and listed[path] != size
    ]
    return lacking + beside + other
