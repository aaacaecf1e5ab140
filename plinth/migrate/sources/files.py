"""Files: JSONL, Parquet and NumPy, read from any row."""

from __future__ import annotations

import codecs
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson

from plinth.errors import UserError
from plinth.migrate.json_values import document as exact
from plinth.migrate.json_values import python_value
from plinth.migrate.model import ROUNDED, UNNAMED, Described, Floats, Key, Position, Row, VectorShape

PAGE_ROWS = 250
FLOAT_BYTES = 4


@dataclass(frozen=True)
class FileOptions:
    """A file; ``key`` and ``vector`` are its fields, ``payload`` is a JSONL file for a .npy, line by line."""

    path: str
    key: str = "id"
    vector: str = "vector"
    payload: str | None = None


@dataclass(frozen=True)
class Record:
    """One record of a file; ``next`` is the position after it."""

    next: int
    key: Key | None
    vector: Floats | None
    payload: dict[str, Any]
    broken: str = ""


class Records(Protocol):
    """A reader for one kind of file."""

    def after(self, place: int) -> Iterator[Record]:
        """Yield the records from a position, which is 0 at the beginning."""

    def left_out(self) -> Mapping[str, str]:
        """Return what the file has and no record gets, with the reason."""


@contextmanager
def open_file(options: FileOptions) -> Iterator[File]:
    """Open a file as a source, by its suffix; raises :class:`UserError` for one that cannot be read."""
    path = Path(options.path)
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    kinds: dict[str, Callable[[FileOptions], Records]] = {
        ".jsonl": Jsonl,
        ".ndjson": Jsonl,
        ".parquet": Parquet,
        ".npy": Npy,
    }
    if path.suffix not in kinds:
        raise UserError(f"{path} is none of {', '.join(kinds)}; convert it to one of these.")
    yield File(options, kinds[path.suffix](options))


class File:
    """A file as a source."""

    def __init__(self, options: FileOptions, records: Records) -> None:
        self._options, self._records, self._path = options, records, Path(options.path)

    def describe(self) -> Described:
        """Describe the file by its first record; its size and modification time are its identity."""
        first = next((one for one in self._records.after(0) if one.vector is not None), None)
        if first is None or first.vector is None:
            raise UserError(
                f"No record of {self._path} has vectors in '{self._options.vector}'; name the field: --vector."
            )
        stat = self._path.stat()
        return Described(
            identity={"kind": "file", "name": self._path.name, "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns},
            namespace=f"file/{self._path.name}",
            vectors={UNNAMED: VectorShape(int(first.vector.shape[-1]), None)},
            fields=dict.fromkeys(first.payload, "as it is, a number that 64 bits do not hold as text"),
            left_out=self._records.left_out(),
        )

    def count(self) -> int:
        """Count the records; refuses two with the same key. It needs 8 bytes of memory per record."""
        seen = np.fromiter(
            (hash(record.key) for record in self._records.after(0) if record.key is not None), dtype=np.int64
        )
        kept, times = np.unique(seen, return_counts=True)
        suspects = set(kept[times > 1].tolist())
        self._refuse_twice(suspects)
        return sum(1 for _ in self._records.after(0))

    def pages(self, after: Position | None) -> Iterator[list[Row]]:
        """Yield records after a position."""
        records = self._records.after(after or 0)
        while page := list(islice(records, PAGE_ROWS)):
            yield [self._row(record) for record in page]

    def _row(self, record: Record) -> Row:
        key: Key = f"at {record.next}" if record.key is None else record.key
        broken = record.broken or ("" if record.key is not None else f"it has no '{self._options.key}'")
        vectors = {} if record.vector is None else {UNNAMED: record.vector}
        return Row(key, record.next, vectors, record.payload, broken)

    def _refuse_twice(self, suspects: set[int]) -> None:
        if not suspects:
            return
        met: set[Key] = set()
        for record in self._records.after(0):
            if record.key is not None and hash(record.key) in suspects:
                if record.key in met:
                    raise UserError(
                        f"Two records of {self._path} have {self._options.key} {record.key!r}, which is one point; "
                        "keep one of them, or name another field: --key.",
                        exit_code=1,
                    )
                met.add(record.key)


class Jsonl:
    """One JSON object a line; a position is a byte."""

    def __init__(self, options: FileOptions) -> None:
        self._options = options

    def after(self, place: int) -> Iterator[Record]:
        """Yield the lines from a byte."""
        for line, end in _lines(self._options.path, place):
            if line.strip():
                yield self._record(line, end)

    def left_out(self) -> Mapping[str, str]:
        """Return nothing: a record has all of its line."""
        return {}

    def _record(self, line: bytes, place: int) -> Record:
        try:
            document, vector = self._read(line)
        except ValueError as error:
            return Record(place, None, None, {}, f"no JSON that a point can hold whole: {error}")
        if document is None:
            return Record(place, None, None, {}, "no JSON object")
        return _record(document, vector, place, self._options)

    def _read(self, line: bytes) -> tuple[dict[str, Any] | None, Any]:
        """Parse the record and its vector.

        The parser that is fast with vectors loses digits, so other numbers are parsed again.
        """
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            # A number may be too large for it.
            document = exact(line)
        if not isinstance(document, dict):
            return None, None
        vector = document.pop(self._options.vector, None)
        if any(_holds_float(value) for value in document.values()):
            document = exact(line)
            document.pop(self._options.vector, None)
        return document, vector


class Parquet:
    """Rows of a Parquet file; a position is a row."""

    def __init__(self, options: FileOptions) -> None:
        if importlib.util.find_spec("pyarrow") is None:
            raise UserError("Parquet is read by pyarrow, which is not installed: .venv/bin/pip install pyarrow.")
        self._options = options

    def after(self, place: int) -> Iterator[Record]:
        """Yield the rows from a row; row groups before it are not read."""
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        try:
            with ParquetFile(self._options.path) as file:
                first, groups = 0, list(range(file.num_row_groups))
                while groups and first + file.metadata.row_group(groups[0]).num_rows <= place:
                    first += file.metadata.row_group(groups.pop(0)).num_rows
                for batch in file.iter_batches(PAGE_ROWS, row_groups=groups):
                    if first + batch.num_rows > place:
                        yield from self._records(batch, first, place)
                    first += batch.num_rows
        except (ArrowException, OSError, ValueError) as error:
            raise UserError(f"{self._options.path} cannot be read as Parquet: {error}.") from error

    def left_out(self) -> Mapping[str, str]:
        """Return the digits of vectors that are too wide."""
        from pyarrow.parquet import read_schema

        schema = read_schema(self._options.path)
        kind = str(schema.field(self._options.vector).type) if self._options.vector in schema.names else ""
        return {f"digits of {self._options.vector}": ROUNDED} if "double" in kind else {}

    def _records(self, batch: Any, first: int, place: int) -> Iterator[Record]:
        options = self._options
        vectors = batch.column(options.vector) if options.vector in batch.schema.names else None
        others = _readable(batch.drop_columns([options.vector]) if vectors is not None else batch)
        for at, document in enumerate(others.to_pylist()):
            if first + at >= place:
                sent = vectors[at] if vectors is not None else None
                vector = sent.values.to_numpy(zero_copy_only=False) if sent is not None and sent.is_valid else None
                yield _record({k: python_value(v) for k, v in document.items()}, vector, first + at + 1, options)


def _readable(batch: Any) -> Any:
    """Convert a batch's nanoseconds to text, or for durations to whole numbers: Python's own times have none."""
    import pyarrow
    from pyarrow import types

    for at, column in enumerate(batch.schema):
        if getattr(column.type, "unit", "") != "ns":
            continue
        kind = pyarrow.int64() if types.is_duration(column.type) else pyarrow.string()
        batch = batch.set_column(at, column.name, batch.column(at).cast(kind))
    return batch


class Npy:
    """Rows of a matrix; a position is a row, and the row's number is the id."""

    def __init__(self, options: FileOptions) -> None:
        self._options = options
        try:
            self._matrix = np.load(options.path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise UserError(f"{options.path} cannot be read as NumPy's matrix: {error}.") from error
        if self._matrix.ndim != 2:
            raise UserError(f"{options.path} has {self._matrix.ndim} axes; a matrix of one row a point is expected.")

    def after(self, place: int) -> Iterator[Record]:
        """Yield the rows from a row, each with its line of the payload's file."""
        payloads = self._payloads(place)
        for at in range(place, len(self._matrix)):
            vector = np.asarray(self._matrix[at], dtype=np.float32)
            yield Record(at + 1, at, vector, next(payloads))

    def left_out(self) -> Mapping[str, str]:
        """Return the digits of vectors that are too wide, and lines of the payload without a row."""
        missing = {"digits of the vectors": ROUNDED} if self._matrix.dtype.itemsize > FLOAT_BYTES else {}
        lines = sum(1 for _ in _lines(self._options.payload)) if self._options.payload else 0
        if lines > len(self._matrix):
            missing["the payload's last lines"] = f"{lines} lines for {len(self._matrix)} rows"
        return missing

    def _payloads(self, place: int) -> Iterator[dict[str, Any]]:
        if self._options.payload is None:
            while True:
                yield {}
        for number, (line, _) in enumerate(_lines(self._options.payload), 1):
            if number > place:
                yield _payload(line, f"line {number} of {self._options.payload}")
        raise UserError(
            f"{self._options.payload} has fewer lines than {self._options.path} has rows; one a row is expected."
        )


def _lines(path: str, place: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield the lines of a file from a byte, without a byte order mark, each with the position of its end."""
    with Path(path).open("rb") as file:
        mark = file.read(len(codecs.BOM_UTF8))
        if mark.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UserError(f"{path} is UTF-16, and UTF-8 is expected; save it as UTF-8.")
        start = len(mark) if mark == codecs.BOM_UTF8 else 0
        place = max(place, start)
        file.seek(place)
        for line in file:
            place += len(line)
            yield line, place


def _holds_float(value: Any) -> bool:
    """Whether a value may have lost digits: orjson reads each number that is not a whole one of 64 bits as a float."""
    if isinstance(value, dict):
        return any(_holds_float(inner) for inner in value.values())
    if isinstance(value, list):
        return any(_holds_float(inner) for inner in value)
    return isinstance(value, float)


def _payload(line: bytes, name: str) -> dict[str, Any]:
    try:
        document = exact(line.decode())
    except ValueError as error:
        raise UserError(f"{name} is no JSON: {error}; correct it.") from None
    if not isinstance(document, dict):
        raise UserError(f"{name} is no JSON object; write the fields of a row as one.")
    return document


def _record(document: dict[str, Any], vector: Any, place: int, options: FileOptions) -> Record:
    key = document.get(options.key)
    if not isinstance(key, int | str) or isinstance(key, bool):
        key = None
    try:
        made = None if vector is None else np.asarray(vector, dtype=np.float32)
    except (ValueError, TypeError):
        return Record(place, key, None, document, f"its '{options.vector}' is no list of numbers")
    if made is not None and (made.ndim != 1 or not made.size):
        return Record(place, key, None, document, f"its '{options.vector}' is no list of numbers")
    broken = f"it has no '{options.vector}'" if made is None else ""
    return Record(place, key, made, document, broken)
