"""The collections of an environment: their files, and what the settings change in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plinth.qdrant.spec import CollectionSpec, load_specs
from plinth.settings import Settings


def collection_specs(settings: Settings, root: Path) -> list[CollectionSpec]:
    """The collections of an environment: the files, with what the settings change in them."""
    wanted = settings.collections
    return load_specs(root / wanted.directory, wanted.only, wanted.overrides)


def collections_declared(settings: Settings, root: Path) -> list[dict[str, Any]]:
    """The same as data, for the configuration of a service that has to know them."""
    return [spec.model_dump(mode="json", exclude_none=True) for spec in collection_specs(settings, root)]
