"""Postgres with pgvector, Supabase too: one snapshot, read in the order of the key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from plinth.errors import UserError
from plinth.migrate.model import ROUNDED, UNNAMED, Described, Key, Position, Row, Vector, VectorShape
from plinth.migrate.sources.pg_catalog import Connection, Table, extension_schema, read_table
from plinth.migrate.sources.pg_columns import (
    ARRAYS,
    VECTORS,
    Column,
    asked_vector,
    conversion,
    identifier,
    key_text,
    read_vector,
)
from plinth.migrate.sources.pg_connect import connect, conninfo, lost
from plinth.migrate.vectors import Unfit

FIRST_ROWS, MOST_ROWS, PAGE_BYTES = 100, 2000, 8 * 2**20


@dataclass(frozen=True)
class PostgresOptions:
    """The options of a database. The login is in a file, in PLINTH_SOURCE_DSN or in libpq's own variables."""

    table: str
    dsn_file: str | None = None
    key: tuple[str, ...] = ()
    vector: str | None = None
    sparse: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    where: str | None = None


@contextmanager
def open_postgres(options: PostgresOptions) -> Iterator[Postgres]:
    """Open a table as a source, read in one snapshot; raises :class:`UserError` if the connection fails."""
    with connect(conninfo(options.dsn_file)) as connection:
        try:
            reading = _reading(connection, options)
        except psycopg.Error as error:
            raise lost(error) from error
        yield Postgres(connection, reading)


class Postgres:
    """A table as a source."""

    def __init__(self, connection: Connection, reading: _Reading) -> None:
        self._connection = connection
        self._reading = reading

    def describe(self) -> Described:
        """Describe the table, its key, its vectors and the conversion of each column."""
        return self._reading.described

    def count(self) -> int:
        """Count the rows in the snapshot; refuses a key that is missing or shared by two rows."""
        reading = self._reading
        keys = sql.SQL(", ").join(column.quoted for column in reading.keys)
        names = ", ".join(column.name for column in reading.keys)
        null = sql.SQL(" OR ").join(sql.SQL("{} IS NULL").format(column.quoted) for column in reading.keys)
        rows, without = self._first(
            sql.SQL("SELECT count(*), count(*) FILTER (WHERE {}) FROM {} AS t {}").format(
                null, reading.table.quoted, reading.where()
            )
        ) or (0, 0)
        label = reading.table.label
        if without:
            raise UserError(f"{without} rows of {label} have no {names}; choose another --key.", exit_code=1)
        twice = None
        if not reading.unique:
            twice = self._first(
                sql.SQL("SELECT {}, count(*) FROM {} AS t {} GROUP BY {} HAVING count(*) > 1 LIMIT 1").format(
                    keys, reading.table.quoted, reading.where(), keys
                )
            )
        if twice:
            raise UserError(
                f"{twice[-1]} rows of {label} have {names} {', '.join(map(str, twice[:-1]))} and would become one "
                "point; choose a --key that no two rows share.",
                exit_code=1,
            )
        return int(rows)

    def pages(self, after: Position | None) -> Iterator[list[Row]]:
        """Yield rows after a key; the size of a page depends on that of the last one."""
        rows = FIRST_ROWS
        while True:
            page, size = self._page(after, rows)
            if page:
                yield page
                after = page[-1].position
            if len(page) < rows:
                return
            rows = max(1, min(MOST_ROWS, PAGE_BYTES * len(page) // max(size, 1)))

    def _page(self, after: Position | None, rows: int) -> tuple[list[Row], int]:
        statement, values = self._reading.statement(after, rows)
        try:
            with self._connection.cursor(binary=True) as cursor:
                found = cursor.execute(statement, values).fetchall()
        except psycopg.Error as error:
            raise lost(error) from error
        return [self._reading.row(record) for record in found], sum(_size(record) for record in found)

    def _first(self, statement: sql.Composed) -> tuple[Any, ...] | None:
        try:
            return self._connection.execute(statement, ()).fetchone()
        except psycopg.Error as error:
            raise lost(error) from error


@dataclass(frozen=True)
class _Reading:
    """How the table is read: its key, its vectors, and its other columns."""

    table: Table
    keys: tuple[Column, ...]
    unique: bool
    vectors: dict[str, Column]
    payload: tuple[Column, ...]
    schema: str | None
    condition: str | None
    described: Described

    def where(self, *more: sql.Composable) -> sql.Composable:
        # Statements are run with values, where a % is doubled.
        own = [sql.SQL("(" + self.condition.replace("%", "%%") + ")")] if self.condition else []
        parts = [*own, *more]
        return sql.SQL("WHERE ") + sql.SQL(" AND ").join(parts) if parts else sql.SQL("")

    def statement(self, after: Position | None, rows: int) -> tuple[sql.Composed, tuple[Any, ...]]:
        keys = sql.SQL(", ").join(column.quoted for column in self.keys)
        asked: list[sql.Composable] = [sql.SQL("{}::text").format(column.quoted) for column in self.keys]
        asked += [asked_vector(column, self.schema) for column in self.vectors.values()]
        asked += [conversion(column)[0] for column in self.payload]
        casts = sql.SQL(", ").join(sql.SQL("%s::" + column.declared.replace("%", "%%")) for column in self.keys)
        beyond = [] if after is None else [sql.SQL("({}) > ({})").format(keys, casts)]
        statement = sql.SQL("SELECT {} FROM {} AS t {} ORDER BY {} LIMIT %s").format(
            sql.SQL(", ").join(asked), self.table.quoted, self.where(*beyond), keys
        )
        return statement, (*(after or ()), rows)

    def row(self, record: tuple[Any, ...]) -> Row:
        texts, rest = record[: len(self.keys)], record[len(self.keys) :]
        data, values = rest[: len(self.vectors)], rest[len(self.vectors) :]
        payload: dict[str, Any] = {}
        vectors: dict[str, Vector] = {}
        broken = ""
        for column, value in zip(self.payload, values, strict=True):
            try:
                payload[column.name] = conversion(column)[2](value)
            except ValueError as error:
                broken = f"{column.name} is JSON of which a part would be lost: {error}"
        for (name, column), sent in zip(self.vectors.items(), data, strict=True):
            try:
                if sent is not None:
                    vectors[name] = read_vector(column, sent)
                elif name == UNNAMED:
                    broken = f"{column.name} is NULL"
            except Unfit as unfit:
                broken = str(unfit)
        return Row(self._key(texts), key_text(texts), vectors, payload, broken)

    def _key(self, texts: tuple[str, ...]) -> Key:
        parts = tuple(
            int(text) if column.type in ("int2", "int4", "int8") else text
            for column, text in zip(self.keys, texts, strict=True)
        )
        return parts[0] if len(parts) == 1 else parts


def _reading(connection: Connection, options: PostgresOptions) -> _Reading:
    table = read_table(connection, options.table)
    keys = _keys(table, options.key)
    names = tuple(column.name for column in keys)
    dense = _dense(table, options.vector)
    vectors = {UNNAMED: dense} | {name: table.column(name, "--sparse") for name in options.sparse}
    for name, column in vectors.items():
        if name and column.type != "sparsevec":
            raise UserError(f"--sparse: {name} is {column.declared}; only a sparsevec becomes a sparse vector.")
    for name in options.skip:
        table.column(name, "--skip")
    left_out = [c for c in table.columns if c.type in VECTORS and c not in vectors.values()]
    payload = tuple(
        c for c in table.columns if c not in left_out and c not in vectors.values() and c.name not in options.skip
    )
    extension = next((c.type for c in vectors.values() if c.type in VECTORS), None)
    schema = extension_schema(connection, extension) if extension else None
    notes: list[str] = []
    missing = {f"{c.name} ({c.declared})": "name it by --vector or --sparse to take it" for c in left_out}
    if dense.type == "_float8":
        missing[f"digits of {dense.name}"] = ROUNDED
    missing |= dict.fromkeys(options.skip, "asked for by --skip")
    if options.where:
        missing["rows"] = f"those for which this is not true: {options.where}"
    distances = table.distances.get(dense.name, frozenset())
    if len(distances) > 1:
        notes.append(f"{dense.name} has indexes for {' and '.join(sorted(distances))}; say which: --distance.")
    datatype = VECTORS.get(dense.type, "float32")
    shapes = {UNNAMED: VectorShape(_size_of(connection, table, dense), _only(distances), datatype)}
    shapes |= {name: VectorShape(None, None, sparse=True) for name in options.sparse}
    server, database = _who(connection)
    described = Described(
        identity={
            "kind": "postgres",
            "server": server,
            "database": database,
            "table": table.label,
            "table_oid": table.oid,
            "columns": {c.name: c.declared for c in table.columns},
            "key": list(names),
            "where": options.where,
        },
        namespace=f"postgres/{database}/{table.schema}/{table.name}",
        vectors=shapes,
        fields={c.name: f"{c.declared} -> {conversion(c)[1]}" for c in payload},
        notes=tuple(notes),
        left_out=missing,
    )
    unique = any(set(columns) <= set(names) for columns in table.unique)
    return _Reading(table, keys, unique, vectors, payload, schema, options.where, described)


def _keys(table: Table, wanted: tuple[str, ...]) -> tuple[Column, ...]:
    names = wanted or table.primary
    if not names:
        raise UserError(f"{table.label} has no primary key; name the columns that no two rows share: --key.")
    return tuple(table.column(name, "--key") for name in names)


def _dense(table: Table, wanted: str | None) -> Column:
    able = {**VECTORS, **ARRAYS}
    if wanted is not None:
        column = table.column(wanted, "--vector")
        if column.type not in able or column.type == "sparsevec":
            raise UserError(f"--vector: {wanted} is {column.declared}; it must be vector, halfvec, real[] or float8[].")
        return column
    found = [c for c in table.columns if c.type in ("vector", "halfvec")]
    if len(found) == 1:
        return found[0]
    there = ", ".join(c.name for c in table.columns if c.type in able) or "none"
    raise UserError(f"Which column of {table.label} holds the vectors? Name it: --vector; there are {there}.")


def _size_of(connection: Connection, table: Table, column: Column) -> int | None:
    if column.type in VECTORS and column.modifier > 0:
        return column.modifier
    asked = sql.SQL("array_length({}, 1)").format(column.quoted)
    if column.type not in ARRAYS:
        function = identifier(extension_schema(connection, column.type) or "public", "vector_dims")
        asked = sql.SQL("{}({})").format(function, column.quoted)
    found = connection.execute(
        sql.SQL("SELECT {} FROM {} AS t WHERE {} IS NOT NULL LIMIT 1").format(asked, table.quoted, column.quoted),
        (),
    ).fetchone()
    return int(found[0]) if found and found[0] else None


def _only(distances: frozenset[str]) -> str | None:
    return next(iter(distances)) if len(distances) == 1 else None


def _who(connection: Connection) -> tuple[str, str]:
    """Return the cluster, by its own identifier if this role may read it, else by its address; and the database."""
    info = connection.info
    allowed = connection.execute("SELECT has_function_privilege('pg_control_system()', 'execute')").fetchone()
    if allowed and allowed[0]:
        found = connection.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
        if found:
            return str(found[0]), info.dbname
    return f"{info.host}:{info.port}", info.dbname


def _size(record: tuple[Any, ...]) -> int:
    return sum(len(value) for value in record if isinstance(value, bytes | str))
