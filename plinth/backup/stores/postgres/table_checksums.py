"""Row counts and checksums of the tables of a Postgres database, to compare a restored one with the saved one.

A table is read by `COPY table TO STDOUT`, which runs the output functions of its types and none of its owner's code: no
cast, no view, no policy, and no index expression, which even the planning of a SELECT evaluates. Plinth computes the
checksum as a sum over the rows, so that their order does not matter, in the snapshot that is dumped.
"""

from __future__ import annotations

import hashlib
from typing import Any

import psycopg
from psycopg import sql

from plinth.backup.manifest import ChecksumKind, Table

# The kind of checksums that this version computes; older sets hold sums that only the server could compute.
CHECKSUM_KIND: ChecksumKind = "copy-blake2b"
_BYTES = 16
LOCK_TIMEOUT_MS = 600_000
# Values must be written as the same text on the saving and the restoring server.
CANONICAL = (
    "SET search_path = ''",
    "SET timezone = 'UTC'",
    "SET datestyle = 'ISO, YMD'",
    "SET intervalstyle = 'postgres'",
    "SET bytea_output = 'hex'",
    "SET extra_float_digits = 3",
    "SET lc_monetary = 'C'",
    # Rows that a policy hides must raise an error, and must not be skipped.
    "SET row_security = off",
    "SET statement_timeout = 0",
    f"SET lock_timeout = {LOCK_TIMEOUT_MS}",
    "SELECT pg_catalog.set_config('client_encoding', pg_catalog.current_setting('server_encoding'), false)",
)
# Tables of extensions are created by CREATE EXTENSION, and no dump holds their rows. Generated columns are left out of
# a dump and computed again; the others are named, because a restored table may have them in another order.
_TABLES = """
SELECT n.nspname, c.relname, array(
  SELECT a.attname::text FROM pg_attribute a
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attname
)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p'
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
  AND NOT EXISTS (
    SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
  )
ORDER BY 1, 2
"""


def tables(connection: psycopg.Connection[Any]) -> tuple[Table, ...]:
    """Return every table with its row count and checksum, as the transaction of the connection sees them."""
    result = []
    for schema, name, columns in connection.execute(_TABLES).fetchall():
        rows, checksum = _read(connection, sql.Identifier(schema, name), columns)
        result.append(Table(schema_name=schema, name=name, rows=rows, checksum=checksum))
    return tuple(result)


def has_rows(connection: psycopg.Connection[Any]) -> bool:
    """Whether any table has a row; the reading of a table stops after its first row."""
    for schema, name, columns in connection.execute(_TABLES).fetchall():
        with connection.cursor() as cursor, cursor.copy(_copy(sql.Identifier(schema, name), columns)) as copy:
            if copy.read():
                return True
    return False


def canonical(connection: psycopg.Connection[Any]) -> None:
    """Make the connection write values as the checksums need them."""
    for statement in CANONICAL:
        connection.execute(statement)


def differences(saved: tuple[Table, ...], actual: tuple[Table, ...], kind: ChecksumKind) -> list[str]:
    """Return how a restored database differs, a message each; checksums of another ``kind`` are not compared."""
    by_name = {(table.schema_name, table.name): table for table in actual}
    result = []
    for table in saved:
        other = by_name.get((table.schema_name, table.name))
        what = f"{table.schema_name}.{table.name}"
        if other is None:
            result.append(f"table {what} is missing")
        elif other.rows != table.rows:
            result.append(f"table {what} has {other.rows} rows and had {table.rows}")
        elif kind == CHECKSUM_KIND and other.checksum != table.checksum:
            result.append(f"table {what} has its {table.rows} rows, and other values in them")
    return result


def _copy(table: sql.Identifier, columns: list[str]) -> sql.Composed:
    listed = sql.SQL(" ({})").format(sql.SQL(", ").join(map(sql.Identifier, columns))) if columns else sql.SQL("")
    return sql.SQL("COPY {}{} TO STDOUT").format(table, listed)


def _read(connection: psycopg.Connection[Any], table: sql.Identifier, columns: list[str]) -> tuple[int, str]:
    total = rows = 0
    # The copy of an empty hash takes a third of the time of a new one with its parameters.
    empty, number = hashlib.blake2b(digest_size=_BYTES), int.from_bytes
    with connection.cursor() as cursor, cursor.copy(_copy(table, columns)) as copy:
        # In text format each message of the protocol is a row.
        while row := copy.read():
            digest = empty.copy()
            digest.update(row)
            total += number(digest.digest(), "big")
            rows += 1
    return rows, f"{total % (1 << 8 * _BYTES):0{2 * _BYTES}x}"
