"""Columns of Postgres: the expression that selects each, and the conversion of its values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from psycopg import sql

from plinth.migrate.json_values import binary, document, each, moment, number, real
from plinth.migrate.model import Floats, Vector
from plinth.migrate.vectors import Unfit, sparse

# pgvector's operator classes, and the distance that each serves.
OPCLASSES = {"cosine": "Cosine", "l2": "Euclid", "ip": "Dot", "l1": "Manhattan"}
VECTORS = {"vector": "float32", "halfvec": "float16", "sparsevec": "float32"}
ARRAYS = {"_float4": "float32", "_float8": "float32"}


def identifier(*names: str) -> sql.Identifier:
    """Quote a name for a statement that is run with values, where a % is doubled."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))


@dataclass(frozen=True)
class Column:
    """A column as the catalog describes it: ``type`` is the base type's name, ``_`` first for an array of it."""

    name: str
    type: str
    declared: str
    modifier: int = -1

    @property
    def quoted(self) -> sql.Identifier:
        """The column's name in a statement; never an output of the same name, which would be its text."""
        return identifier("t", self.name)


def _same(value: Any) -> Any:
    return value


# Kinds that arrive as Python's own values; every other kind is selected as text.
JSON = "JSON as it is, a number that 64 bits do not hold as text"
PLAIN = {"int2", "int4", "int8", "bool", "text", "varchar", "bpchar"}
TEXTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "float4": ("number", real),
    "float8": ("number", real),
    "numeric": ("number where exact, else text", number),
    "json": (JSON, document),
    "jsonb": (JSON, document),
    "timestamptz": ("RFC 3339, UTC", moment),
    "timestamp": ("RFC 3339 without a zone", moment),
    "date": ("date", _same),
    "uuid": ("text", _same),
}


def conversion(column: Column) -> tuple[sql.Composable, str, Callable[[Any], Any]]:
    """Return the expression that selects a column's value, a description of the result, and the conversion."""
    kind = column.type.removeprefix("_")
    array = "[]" if column.type.startswith("_") else ""
    many = "list of " if array else ""
    if kind == "bytea":
        return column.quoted, f"{many}base64", partial(each, binary)
    if kind in PLAIN:
        word = {"bool": "true or false"}.get(kind, "integer" if kind.startswith("int") else "text")
        return column.quoted, f"{many}{word}", _same
    word, convert = TEXTS.get(kind, (f"text of {column.declared}", _same))
    if convert is document and not array:
        many = ""
    return sql.SQL("{}::text" + array).format(column.quoted), f"{many}{word}", partial(each, convert)


def asked_vector(column: Column, schema: str | None) -> sql.Composable:
    """Return the expression that selects a vector's bytes; ``schema`` is the extension's."""
    if column.type in ARRAYS:
        return sql.SQL("array_send({})").format(column.quoted)
    return sql.SQL("{}({})").format(identifier(schema or "public", f"{column.type}_send"), column.quoted)


def read_vector(column: Column, data: bytes) -> Vector:
    """Decode a vector from the binary format of its type (big-endian); raises :class:`Unfit`."""
    if column.type in ARRAYS:
        return _array(data, "f4" if column.type == "_float4" else "f8")
    if column.type == "sparsevec":
        _, count, _ = np.frombuffer(data, ">i4", 3)
        indices = np.frombuffer(data, ">i4", count, 12)
        return sparse(indices, np.frombuffer(data, ">f4", count, 12 + 4 * int(count)))
    return np.frombuffer(data, ">f2" if column.type == "halfvec" else ">f4", offset=4).astype(np.float32)


def key_text(parts: Sequence[Any]) -> list[str]:
    """Return a position in the order of keys: their text, which casts back to the same values."""
    return [str(part) for part in parts]


def _array(data: bytes, item: str) -> Floats:
    axes = int.from_bytes(data[:4], "big")
    if axes != 1:
        raise Unfit("the vector is empty" if axes == 0 else f"the vector is an array of {axes} axes")
    size = int.from_bytes(data[12:16], "big")
    width = np.dtype(item).itemsize
    if len(data) != 20 + size * (4 + width):
        raise Unfit("the vector has a component that is NULL")
    items = np.frombuffer(data, np.dtype([("length", ">i4"), ("value", f">{item}")]), size, 20)
    with np.errstate(over="ignore"):
        return items["value"].astype(np.float32)
