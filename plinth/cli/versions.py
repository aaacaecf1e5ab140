"""What `plinth --version` prints: Plinth's version, and those of the parts that it deploys with."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from plinth.errors import UserError
from plinth.settings.loader import project_root
from plinth.system.versions import numbers
from plinth.system.yaml_files import read_yaml
from plinth.targets.images import PINS, without_digest


def version_lines() -> list[str]:
    """Return a line for each version; outside of a project nothing pins Pulumi and Qdrant, and a line says so."""
    try:
        pinned = pinned_versions(project_root())
    except UserError:
        pinned = dict.fromkeys(("pulumi", "qdrant"), "(pinned by the project, and this directory is in none)")
    versions = {"plinth": version("plinth"), **pinned, "qdrant-edge": version("qdrant-edge-py")}
    return [f"{name} {number}" for name, number in versions.items()]


def pinned_versions(root: Path) -> dict[str, str]:
    """Return the versions of Pulumi and Qdrant that config/images.yaml of a project pins."""
    pins = read_yaml(root / PINS)
    tag = without_digest(pins["images"]["qdrant"]).rpartition(":")[2]
    return {"pulumi": str(pins["tools"]["pulumi"]), "qdrant": ".".join(map(str, numbers(tag)))}
