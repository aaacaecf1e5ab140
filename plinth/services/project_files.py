"""What services know of the project's files: the collections, and which rules and dashboards there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plinth.qdrant.spec import CollectionSpec, load_specs
from plinth.services.monitoring import DASHBOARDS, RULES
from plinth.settings import Settings


@dataclass(frozen=True)
class ProjectFiles:
    """The project's directory, the collections of an environment, and the names of rule files and dashboards."""

    root: Path
    collections: tuple[CollectionSpec, ...]
    rules: tuple[str, ...]
    dashboards: tuple[str, ...]


def read_project_files(settings: Settings, root: Path) -> ProjectFiles:
    """Read them; raises :class:`plinth.errors.UserError` naming the collection file and the key that is wrong."""
    return ProjectFiles(
        root,
        tuple(collection_specs(settings, root)),
        tuple(sorted(path.name for path in (root / RULES).glob("*.y*ml"))),
        tuple(sorted(path.name for path in (root / DASHBOARDS).glob("*.json"))),
    )


def collection_specs(settings: Settings, root: Path) -> list[CollectionSpec]:
    """The collections of an environment: the files, with what the settings change in them."""
    collections = settings.collections
    return load_specs(root / collections.directory, collections.only, collections.overrides)
