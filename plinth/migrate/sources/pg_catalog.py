"""A table by Postgres' catalog: columns, key, indexes and the distances that they serve."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from plinth.errors import UserError
from plinth.migrate.sources.pg_columns import OPCLASSES, Column, identifier

Connection = psycopg.Connection[tuple[Any, ...]]

COLUMNS = """
SELECT a.attname, coalesce(b.typname, t.typname), format_type(a.atttypid, a.atttypmod), a.atttypmod
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
KEYS = """
SELECT i.indisprimary, array(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(n, at)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n WHERE k.at <= i.indnkeyatts ORDER BY k.at)
FROM pg_index i WHERE i.indrelid = %s AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indisvalid
ORDER BY i.indisprimary DESC"""
VECTOR_INDEXES = """
SELECT o.opcname, a.attname, pg_get_expr(i.indexprs, i.indrelid)
FROM pg_index i CROSS JOIN unnest(i.indclass::oid[]) AS c(oid) JOIN pg_opclass o ON o.oid = c.oid
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND i.indkey[0] <> 0
WHERE i.indrelid = %s AND o.opcname ~ '^(vector|halfvec|sparsevec)_(cosine|l2|ip|l1)_ops$'"""
_PART = re.compile(r'"(?:[^"]|"")+"|[^".]+')
_QUOTED = re.compile(rf"(?:{_PART.pattern})(?:\.(?:{_PART.pattern}))?")
EXTENSION = "SELECT n.nspname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typname = %s"


@dataclass(frozen=True)
class Table:
    """A table. ``unique`` are the sets of columns that no two rows share, the primary key first."""

    oid: int
    schema: str
    name: str
    columns: tuple[Column, ...]
    primary: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    distances: dict[str, frozenset[str]]

    @property
    def quoted(self) -> sql.Identifier:
        """The table's name in a statement."""
        return identifier(self.schema, self.name)

    @property
    def label(self) -> str:
        """The table's name in a message."""
        return f"{self.schema}.{self.name}"

    def column(self, name: str, option: str) -> Column:
        """Return a column by name; refuses an unknown one, listing the existing ones."""
        for column in self.columns:
            if column.name == name:
                return column
        there = ", ".join(column.name for column in self.columns)
        raise UserError(f"{option}: {self.label} has no column '{name}'; it has {there}.")


def read_table(connection: Connection, name: str) -> Table:
    """Read a table's description by `schema.table`, or by its name along the search path."""
    for parts in _readings(name):
        found = connection.execute(
            "SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.oid = to_regclass(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
            (sql.Identifier(*parts).as_string(connection),),
        ).fetchone()
        if found:
            break
    else:
        raise UserError(_no_table(connection, name))
    oid, schema, relation = found
    columns = tuple(Column(*row) for row in connection.execute(COLUMNS, (oid,)))
    keys = connection.execute(KEYS, (oid,)).fetchall()
    primary = next((tuple(names) for is_primary, names in keys if is_primary), ())
    distances: dict[str, set[str]] = {}
    for opclass, column, expression in connection.execute(VECTOR_INDEXES, (oid,)):
        distance = OPCLASSES[opclass.split("_")[1]]
        for owner in [column] if column else _named(expression, columns):
            distances.setdefault(owner, set()).add(distance)
    unique = tuple(tuple(names) for _, names in keys)
    return Table(oid, schema, relation, columns, primary, unique, {k: frozenset(v) for k, v in distances.items()})


def _readings(name: str) -> Iterator[tuple[str, ...]]:
    """Yield the possible meanings of a table's name: quoted as in SQL, a schema before a dot, or one name with dots."""
    if _QUOTED.fullmatch(name):
        yield tuple(part[1:-1].replace('""', '"') if part.startswith('"') else part for part in _PART.findall(name))
    for at in (index for index, letter in enumerate(name) if letter == "."):
        if name[:at] and name[at + 1 :]:
            yield name[:at], name[at + 1 :]
    yield (name,)


def extension_schema(connection: Connection, type_: str) -> str | None:
    """Return the schema of an extension's type: Supabase keeps pgvector in `extensions`."""
    found = connection.execute(EXTENSION, (type_,)).fetchone()
    return str(found[0]) if found else None


def _named(expression: str | None, columns: Sequence[Column]) -> list[str]:
    # An index over an expression, such as embedding::halfvec(3072).
    return [c.name for c in columns if re.search(rf"(?<!\w){re.escape(c.name)}(?!\w)", expression or "")]


def _no_table(connection: Connection, name: str) -> str:
    there = connection.execute(
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') "
        "AND has_table_privilege(c.oid, 'SELECT') ORDER BY 1 LIMIT 20"
    ).fetchall()
    names = ", ".join(row[0] for row in there) or "none that this role may read"
    return f"There is no table '{name}' in this database; there are {names}. Write it as schema.table."
