"""Qdrant's own config file, as far as the embedded engine reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from plinth.errors import UserError

OPTIMIZERS: dict[str, Any] = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "max_segment_size": None,
    "indexing_threshold": 10000,
    "flush_interval_sec": 5,
    "max_optimization_threads": None,
}
HNSW: dict[str, Any] = {
    "m": 16,
    "ef_construct": 100,
    "full_scan_threshold": 10000,
    "max_indexing_threads": 0,
    "on_disk": False,
}


@dataclass(frozen=True)
class Config:
    """Where the engine listens, what keys open it and where its data is; defaults for new collections."""

    host: str
    port: int
    storage: Path
    snapshots: Path
    api_key: str | None = field(default=None, repr=False)
    alt_api_key: str | None = field(default=None, repr=False)
    read_only_api_key: str | None = field(default=None, repr=False)
    jwt_rbac: bool = False
    max_request_mb: int = 32
    on_disk_payload: bool = True
    optimizers: dict[str, Any] = field(default_factory=dict)
    log_level: str = "INFO"


def load(path: Path) -> Config:
    """Read a config file; raises :class:`UserError` naming the file and what is wrong with it."""
    try:
        document = yaml.safe_load(path.read_text()) or {}
        service, storage = document.get("service") or {}, document.get("storage") or {}
        optimizers = storage.get("optimizers") or {}
        renamed = {key.removesuffix("_kb"): value for key, value in optimizers.items()}
        return Config(
            host=str(service.get("host", "127.0.0.1")),
            port=int(service.get("http_port", 6333)),
            storage=Path(storage.get("storage_path", "./storage")).resolve(),
            snapshots=Path(storage.get("snapshots_path", "./snapshots")).resolve(),
            api_key=service.get("api_key"),
            alt_api_key=service.get("alt_api_key"),
            read_only_api_key=service.get("read_only_api_key"),
            jwt_rbac=bool(service.get("jwt_rbac", False)),
            max_request_mb=int(service.get("max_request_size_mb", 32)),
            on_disk_payload=bool(storage.get("on_disk_payload", True)),
            optimizers={**OPTIMIZERS, **{key: renamed[key] for key in OPTIMIZERS if key in renamed}},
            log_level=str(document.get("log_level", "INFO")),
        )
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; name Qdrant's config file with --config-path.") from None
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read as Qdrant's config: {' '.join(str(error).split())}; mend it."
        ) from error
