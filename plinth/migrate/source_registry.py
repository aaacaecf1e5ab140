"""Where a migration goes to and where it keeps its state; and a source opened from what a checkpoint keeps of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plinth.errors import UserError
from plinth.migrate.model import Source
from plinth.migrate.retrying_client import PatientQdrant
from plinth.migrate.sources.chroma import ChromaOptions, open_chroma
from plinth.migrate.sources.files import FileOptions, open_file
from plinth.migrate.sources.postgres import PostgresOptions, open_postgres
from plinth.migrate.sources.qdrant import QdrantOptions, open_qdrant
from plinth.qdrant.spec import CollectionSpec, load_specs
from plinth.settings.loader import project_root

KEY_VARIABLE = "QDRANT_API_KEY"
Options = PostgresOptions | ChromaOptions | QdrantOptions | FileOptions
KINDS: dict[str, tuple[type[Any], Callable[[Any], AbstractContextManager[Source]]]] = {
    "postgres": (PostgresOptions, open_postgres),
    "chroma": (ChromaOptions, open_chroma),
    "qdrant": (QdrantOptions, open_qdrant),
    "file": (FileOptions, open_file),
}


def is_address(to: str) -> bool:
    """Whether a target is a server's address and no environment."""
    return to.startswith(("http://", "https://"))


def at_address(url: str, patience_s: float) -> tuple[PatientQdrant, list[CollectionSpec]]:
    """A server by its address, with the key of QDRANT_API_KEY, and the collection files of the project around."""
    client = PatientQdrant(url, os.environ.get(KEY_VARIABLE), patience_s)
    try:
        directory = project_root() / "config" / "collections"
    except UserError:
        return client, []
    return client, load_specs(directory)


def find_spec(specs: Sequence[CollectionSpec], name: str) -> CollectionSpec | None:
    """The collection file of this name or alias, if there is one."""
    return next((spec for spec in specs if name in (spec.name, *spec.aliases)), None)


def state_directory(to: str, collection: str, chosen: Path | None) -> Path:
    """Where a migration into a collection keeps its checkpoint: in the project, or in the working directory."""
    if chosen is not None:
        return chosen.expanduser().absolute()
    try:
        base = project_root() / ".plinth" / "migrate"
    except UserError:
        base = Path.cwd() / "plinth-migrate"
    return base / re.sub(r"[^A-Za-z0-9._-]+", "_", to.partition("://")[2] or to) / collection


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
