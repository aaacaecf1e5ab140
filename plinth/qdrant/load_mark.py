"""How the load gate's own collections are told from everybody else's: by their name and by a mark in their metadata.

A name alone could be anybody's. Both together are the gate's: backups, `collections diff` and the exporter leave such a
collection out, and the gate drops what a killed run has left of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "plinth_load_"
MARK = "plinth_load_gate"


def is_load_gates(name: str, metadata: Any) -> bool:
    """Whether a collection of this name and metadata is the load gate's."""
    return name.startswith(PREFIX) and isinstance(metadata, Mapping) and isinstance(metadata.get(MARK), Mapping)


def metadata_of(description: Any) -> Any:
    """The metadata in the `result` of `GET /collections/{name}`; an older server tells none."""
    config = description.get("config") if isinstance(description, Mapping) else None
    return config.get("metadata") if isinstance(config, Mapping) else None
