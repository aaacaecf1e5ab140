"""The collections of an environment: their files, with the overrides of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plinth.qdrant.spec import CollectionSpec, load_specs
from plinth.settings import Settings


def collection_specs(settings: Settings, root: Path) -> list[CollectionSpec]:
    """Return the collections of an environment: its files, with the overrides of the settings."""
    wanted = settings.collections
    return load_specs(root / wanted.directory, wanted.only, wanted.overrides)


def collections_declared(settings: Settings, root: Path) -> list[dict[str, Any]]:
    """Return the collections of an environment as data, for the configuration of a service."""
    return [spec.model_dump(mode="json", exclude_none=True) for spec in collection_specs(settings, root)]
