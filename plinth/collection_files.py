"""The collections of an environment: their files, and what the settings change in them."""

from __future__ import annotations

from pathlib import Path

from plinth.qdrant.spec import CollectionSpec, load_specs
from plinth.settings import Settings


def collection_specs(settings: Settings, root: Path) -> list[CollectionSpec]:
    """The collections of an environment: the files, with what the settings change in them."""
    wanted = settings.collections
    return load_specs(root / wanted.directory, wanted.only, wanted.overrides)
