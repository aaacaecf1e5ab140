"""Where a migration goes to and where it keeps its state; and a source opened from what a checkpoint keeps of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plinth.migrate.model import Source
from plinth.migrate.sources.chroma import ChromaOptions, open_chroma
from plinth.migrate.sources.files import FileOptions, open_file
from plinth.migrate.sources.postgres import PostgresOptions, open_postgres
from plinth.migrate.sources.qdrant import QdrantOptions, open_qdrant

Options = PostgresOptions | ChromaOptions | QdrantOptions | FileOptions
KINDS: dict[str, tuple[type[Any], Callable[[Any], AbstractContextManager[Source]]]] = {
    "postgres": (PostgresOptions, open_postgres),
    "chroma": (ChromaOptions, open_chroma),
    "qdrant": (QdrantOptions, open_qdrant),
    "file": (FileOptions, open_file),
}


def absolute(path: str | Path) -> str:
    """The path of a source as a checkpoint keeps it: the same from every directory."""
    return str(Path(path).expanduser().absolute())


def kept(kind: str, options: Options) -> dict[str, Any]:
    """What a checkpoint keeps of a source, in JSON's own types."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}
    return {"kind": kind, **values}


def open_source(opened_by: Mapping[str, Any]) -> AbstractContextManager[Source]:
    """A source from what :func:`kept` made."""
    made, opened = KINDS[opened_by["kind"]]
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in opened_by.items()}
    values.pop("kind")
    return opened(made(**values))
