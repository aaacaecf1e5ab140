"""Store the options of a source in a checkpoint, and open the source from them."""

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
    """Return the absolute path of a source, which a checkpoint keeps: it is valid from every directory."""
    return str(Path(path).expanduser().absolute())


def kept(kind: str, options: Options) -> dict[str, Any]:
    """Return what a checkpoint keeps of a source, in JSON's own types."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}
    return {"kind": kind, **values}


def open_source(opened_by: Mapping[str, Any]) -> AbstractContextManager[Source]:
    """Open a source from what :func:`kept` returned."""
    made, opened = KINDS[opened_by["kind"]]
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in opened_by.items()}
    values.pop("kind")
    return opened(made(**values))
