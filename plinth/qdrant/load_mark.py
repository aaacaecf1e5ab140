"""Recognition of the load gate's own collections: by their name and by a mark in their metadata.

A user's collection may have such a name. Name and mark together are the gate's: backups, `collections diff` and the
exporter skip such a collection, and the gate drops what a killed run has left of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "plinth_load_"
MARK = "plinth_load_gate"


def is_load_gates(name: str, metadata: Any) -> bool:
    """Return whether a collection of this name and metadata is the load gate's."""
    return name.startswith(PREFIX) and isinstance(metadata, Mapping) and isinstance(metadata.get(MARK), Mapping)


def metadata_of(description: Any) -> Any:
    """Return the metadata in the `result` of `GET /collections/{name}`; None from a server too old to have it."""
    config = description.get("config") if isinstance(description, Mapping) else None
    return config.get("metadata") if isinstance(config, Mapping) else None
