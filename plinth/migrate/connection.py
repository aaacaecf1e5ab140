"""The target of a migration, an environment or an address, and the directory of its state."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from plinth.errors import UserError
from plinth.migrate.retrying_client import PatientQdrant
from plinth.qdrant.spec import CollectionSpec, load_specs
from plinth.settings.loader import project_root

KEY_VARIABLE = "QDRANT_API_KEY"


def is_address(to: str) -> bool:
    """Whether a target is a server's address and not an environment."""
    return to.startswith(("http://", "https://"))


def at_address(url: str, patience_s: float) -> tuple[PatientQdrant, list[CollectionSpec]]:
    """Connect to an address with the key of QDRANT_API_KEY; also returns the project's collection files."""
    client = PatientQdrant(url, os.environ.get(KEY_VARIABLE), patience_s)
    try:
        directory = project_root() / "config" / "collections"
    except UserError:
        return client, []
    return client, load_specs(directory)


def find_spec(specs: Sequence[CollectionSpec], name: str) -> CollectionSpec | None:
    """Return the collection file of this name or alias, or None."""
    return next((spec for spec in specs if name in (spec.name, *spec.aliases)), None)


def state_directory(to: str, collection: str, chosen: Path | None) -> Path:
    """Return the directory of a migration's checkpoint: in the project, or in the working directory."""
    if chosen is not None:
        return chosen.expanduser().absolute()
    try:
        base = project_root() / ".plinth" / "migrate"
    except UserError:
        base = Path.cwd() / "plinth-migrate"
    return base / re.sub(r"[^A-Za-z0-9._-]+", "_", to.partition("://")[2] or to) / collection
