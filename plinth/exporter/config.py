"""The exporter's configuration: one YAML file."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from plinth.qdrant.spec import CollectionSpec
from plinth.system.config_file import load
from plinth.system.strict_model import StrictModel


class Listen(StrictModel):
    """The address of the metrics page."""

    host: str
    port: int


class Watched(StrictModel):
    """Qdrant, and the part of its settings that the exporter compares with."""

    url: str
    api_key_file: Path | None = None
    ca_file: Path | None = None
    peers: int = Field(ge=1)
    memory_limit_bytes: int = Field(ge=0)


class Pace(StrictModel):
    """Seconds between rounds, between measurements of recall, which scan a tenant each, and of sizes on disk."""

    round_sec: float = Field(30, gt=0)
    recall_sec: float = Field(900, gt=0)
    size_sec: float = Field(300, gt=0)


class Container(StrictModel):
    """The owner of a container: a service, and its node where the service has several."""

    service: str
    node: str


class Cgroups(StrictModel):
    """The cgroup directories of the machine, and each container by the name of its parent cgroup."""

    directory: Path
    above: dict[str, Container]


class Config(StrictModel):
    """The whole configuration file."""

    listen: Listen
    qdrant: Watched
    collections: tuple[CollectionSpec, ...]
    backup_state: Path | None = None
    marks: Path | None = None
    services: dict[str, int] = Field(default_factory=dict, description="Ports, by the service that listens on them.")
    volumes: dict[str, tuple[Path, ...]] = Field(default_factory=dict, description="Directories, by their service.")
    cgroups: Cgroups | None = Field(None, description="Where services are containers: in the place of their ports.")
    pace: Pace = Pace()


def load_config(path: Path) -> Config:
    """Read the file. Raises :class:`UserError` with the name of the key that is wrong."""
    return load(path, Config)
