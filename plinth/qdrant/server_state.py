"""The actual state of a server, read back with GET: a PATCH with an unknown field answers `true` and does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plinth.qdrant.client import Qdrant
from plinth.system.http_client import is_path_part


@dataclass(frozen=True)
class FoundCollection:
    """A collection as the server describes it. ``indexes`` are parameters by field, including `type`."""

    name: str
    vectors: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    hnsw: Mapping[str, Any] = field(default_factory=dict)
    optimizers: Mapping[str, Any] = field(default_factory=dict)
    quantization: Mapping[str, Any] | None = None
    wal: Mapping[str, Any] = field(default_factory=dict)
    strict_mode: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    indexes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    points: int = 0


@dataclass(frozen=True)
class Found:
    """The collections of a server by name, and its aliases."""

    collections: Mapping[str, FoundCollection] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


def read_collection(client: Qdrant, name: str) -> FoundCollection | None:
    """Return one physical collection, or None when it does not exist."""
    if name not in client.collections():
        # GET by name would follow an alias.
        return None
    described = client.collection(name)
    return from_description(name, described) if described else None


def read(client: Qdrant) -> Found:
    """Return the state of the server, as far as its API reports it; no file declares the rest."""
    described = {name: client.collection(name) for name in client.collections() if is_path_part(name)}
    return Found({name: from_description(name, d) for name, d in described.items() if d}, client.aliases())


def from_description(name: str, described: Mapping[str, Any]) -> FoundCollection:
    """Convert the `result` of `GET /collections/{name}` to the spec's keys."""
    config = described["config"]
    params = config["params"]
    return FoundCollection(
        name=name,
        vectors=params.get("vectors") or {},
        params={key: value for key, value in params.items() if key != "vectors"},
        hnsw=config.get("hnsw_config") or {},
        optimizers=config.get("optimizer_config") or {},
        quantization=config.get("quantization_config"),
        wal=config.get("wal_config") or {},
        strict_mode=config.get("strict_mode_config") or {},
        metadata=config.get("metadata") or {},
        indexes={
            name: {"type": schema["data_type"], **(schema.get("params") or {})}
            for name, schema in (described.get("payload_schema") or {}).items()
        },
        points=described.get("points_count") or 0,
    )
