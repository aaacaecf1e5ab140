"""What a Postgres database holds, so that a restored one can be compared: rows and a checksum for each table.

The checksum is a sum over the rows, so that their order does not matter; it is taken in the snapshot that is dumped.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from plinth.backup.manifest import Table

# How values are written as text must be the same here and there.
CANONICAL = (
    "SET search_path = ''",
    "SET timezone = 'UTC'",
    "SET datestyle = 'ISO, YMD'",
    "SET intervalstyle = 'postgres'",
    "SET bytea_output = 'hex'",
    "SET extra_float_digits = 3",
    "SET lc_monetary = 'C'",
    "SET statement_timeout = 0",
)
# Tables of extensions are made by CREATE EXTENSION, and no dump holds their rows.
_TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
  AND NOT EXISTS (
    SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
  )
ORDER BY 1, 2
"""
_CHECKSUM = """
SELECT count(*), coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::bigint), 0)::text FROM ONLY {} AS t
"""


def tables(connection: psycopg.Connection[Any]) -> tuple[Table, ...]:
    """Every table with its rows and their checksum, as the transaction of the connection sees them."""
    found = []
    for schema, name in connection.execute(_TABLES).fetchall():
        row = connection.execute(sql.SQL(_CHECKSUM).format(sql.Identifier(schema, name))).fetchone()
        assert row is not None  # noqa: S101 - an aggregate answers with one row
        found.append(Table(schema_name=schema, name=name, rows=int(row[0]), checksum=str(row[1])))
    return tuple(found)


def canonical(connection: psycopg.Connection[Any]) -> None:
    """Have the connection write values as the checksums want them."""
    for statement in CANONICAL:
        connection.execute(statement)


def differences(wanted: tuple[Table, ...], found: tuple[Table, ...]) -> list[str]:
    """What a restored database has otherwise, a sentence each."""
    by_name = {(table.schema_name, table.name): table for table in found}
    said = []
    for table in wanted:
        other = by_name.get((table.schema_name, table.name))
        what = f"{table.schema_name}.{table.name}"
        if other is None:
            said.append(f"table {what} is missing")
        elif other.rows != table.rows:
            said.append(f"table {what} has {other.rows} rows and had {table.rows}")
        elif other.checksum != table.checksum:
            said.append(f"table {what} has its {table.rows} rows, and other values in them")
    return said
