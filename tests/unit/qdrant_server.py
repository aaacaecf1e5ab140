"""A Qdrant server in memory, as far as collections go: what it merges, ignores, refuses and echoes (v1.18.3)."""

from __future__ import annotations

import copy
from typing import Any
from urllib.parse import unquote

import numpy as np

from plinth.qdrant.client import Qdrant, QdrantError
from plinth.qdrant.payload_index import OPTIONS

HNSW = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000, "max_indexing_threads": 0, "on_disk": False}
OPTIMIZERS = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "flush_interval_sec": 5,
}
WAL = {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}
PARAMS = {"replication_factor": 1, "write_consistency_factor": 1, "on_disk_payload": True}


class InMemoryQdrant(Qdrant):
    """The client, with the server inside. ``asked`` is every request that may change something.

    ``clusters`` are the answers of `GET /collections/{name}/cluster`.
    """

    def __init__(self) -> None:
        self.url = "http://in-memory"
        self.stored: dict[str, dict[str, Any]] = {}
        self.pointed: dict[str, str] = {}
        self.clusters: dict[str, Any] = {}
        self.version = "1.18.3"
        self.asked: list[tuple[str, str]] = []

    def banner(self) -> str:
        return f"qdrant - vector search engine {self.version}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        body = copy.deepcopy(body)
        parts = [unquote(part) for part in path.partition("?")[0].strip("/").split("/")]
        if method != "GET":
            self.asked.append((method, path))
        match method, parts:
            case "GET", ["collections"]:
                return {"collections": [{"name": name} for name in self.stored]}
            case "GET", ["aliases"]:
                return {"aliases": [{"alias_name": a, "collection_name": c} for a, c in self.pointed.items()]}
            case "GET", ["collections", name]:
                return copy.deepcopy(self._there(name))
            case "GET", ["collections", name, "cluster"]:
                return copy.deepcopy(self.clusters[name])
            case "DELETE", ["collections", name]:
                return self.stored.pop(name, None) is not None
            case "PUT", ["collections", name]:
                return self._create(name, body)
            case "PATCH", ["collections", name]:
                return self._patch(self._there(name)["config"], body)
            case "PUT", ["collections", name, "index"]:
                return self._index(self._there(name), body["field_name"], body["field_schema"])
            case "DELETE", ["collections", name, "index", field]:
                return self._there(name)["payload_schema"].pop(field, None) is not None
            case "POST", ["collections", "aliases"]:
                return [self._alias(action) for action in body["actions"]] and True
        raise AssertionError(f"not a request that a plan makes: {method} {path}")

    def _there(self, name: str) -> dict[str, Any]:
        name = self.pointed.get(name, name)
        if name not in self.stored:
            raise QdrantError(f"Not found: Collection `{name}` doesn't exist!", 404)
        return self.stored[name]

    def _create(self, name: str, body: dict[str, Any]) -> bool:
        if name in self.stored:
            raise QdrantError("already exists", 409)
        if name in self.pointed:
            raise QdrantError("Alias with the same name already exists", 400)
        params = {key: body[key] for key in ("vectors", "sparse_vectors", "sharding_method") if body.get(key)}
        self.stored[name] = {
            "config": {
                "params": {**PARAMS, "shard_number": 1, **params, **_set(body, *PARAMS, "shard_number")},
                "hnsw_config": {**HNSW, **_rounded(body.get("hnsw_config", {}))},
                "optimizer_config": {**OPTIMIZERS, **_rounded(body.get("optimizers_config", {}))},
                "wal_config": {**WAL, **body.get("wal_config", {})},
                "quantization_config": _rounded(body.get("quantization_config")),
                "strict_mode_config": body.get("strict_mode_config"),
                "metadata": body.get("metadata"),
            },
            "payload_schema": {},
            "points_count": 0,
        }
        return True

    def _patch(self, config: dict[str, Any], body: dict[str, Any]) -> bool:
        sections = {"hnsw_config": "hnsw_config", "optimizers_config": "optimizer_config", "params": "params"}
        sections |= {"strict_mode_config": "strict_mode_config", "metadata": "metadata"}
        for asked, kept in sections.items():
            given = {k: v for k, v in (body.get(asked) or {}).items() if v is not None}
            if asked == "params":
                given = _set(given, *PARAMS)
            if given:
                config[kept] = {**(config[kept] or {}), **_rounded(given)}
        if body.get("quantization_config"):
            wanted = body["quantization_config"]
            config["quantization_config"] = None if wanted == "Disabled" else _rounded(wanted)
        for name, given in (body.get("vectors") or {}).items():
            vectors = config["params"]["vectors"]
            (vectors if name == "" else vectors[name]).update(_set(given, "on_disk"))
        return True

    def _index(self, collection: dict[str, Any], field: str, schema: dict[str, Any]) -> bool:
        known = {key: value for key, value in schema.items() if key in OPTIONS[schema["type"]]}
        nulls = {"lookup": None, "range": None} if schema["type"] == "integer" else {}
        collection["payload_schema"][field] = {"data_type": schema["type"], "params": {**nulls, **known}}
        return True

    def _alias(self, action: dict[str, Any]) -> None:
        ((kind, wanted),) = action.items()
        alias = wanted["alias_name"]
        if kind == "delete_alias":
            self.pointed.pop(alias, None)
            return
        if alias in self.stored:
            raise QdrantError("Collection with the same name already exists", 409)
        if wanted["collection_name"] not in self.stored:
            raise QdrantError("no such collection", 404)
        self.pointed[alias] = wanted["collection_name"]


def _set(body: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: body[key] for key in keys if body.get(key) is not None}


def _rounded(value: Any) -> Any:
    """As a server echoes it: fractions in single precision."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return float(np.float32(value)) if isinstance(value, float) else value
