"""How a saved collection is created again, on any number of nodes: pure functions over the terms of the REST API."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from plinth.backup.manifest import Collection, Shard
from plinth.backup.session import BackupError

# The keys of `GET /collections/{name}` that `PUT` accepts under the same name.
PARAMS = (
    "vectors",
    "sparse_vectors",
    "shard_number",
    "sharding_method",
    "replication_factor",
    "write_consistency_factor",
    "on_disk_payload",
)
SECTIONS = {
    "hnsw_config": "hnsw_config",
    "wal_config": "wal_config",
    "optimizer_config": "optimizers_config",
    "quantization_config": "quantization_config",
    "strict_mode_config": "strict_mode_config",
    "metadata": "metadata",
}


def creation(described: Mapping[str, Any], nodes: int) -> dict[str, Any]:
    """Return the body that creates a collection as it was, with no more replicas than there are nodes."""
    config = described["config"]
    body = {key: config["params"][key] for key in PARAMS if config["params"].get(key) is not None}
    for factor in ("replication_factor", "write_consistency_factor"):
        if factor in body:
            body[factor] = min(int(body[factor]), nodes)
    return body | {there: config[here] for here, there in SECTIONS.items() if config.get(here)}


def indexes(described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the bodies that create its payload indexes."""
    return [
        {"field_name": field, "field_schema": schema.get("params") or schema["data_type"]}
        for field, schema in sorted((described.get("payload_schema") or {}).items())
    ]


def shard_keys(shards: Sequence[Shard]) -> list[tuple[str | int, int]]:
    """Return the shard keys in the order of their creation, each with its number of shards."""
    counted: dict[str | int, int] = defaultdict(int)
    for shard in sorted(shards, key=lambda each: each.id):
        if shard.key is not None:
            counted[shard.key] += 1
    return list(counted.items())


def places(shards: Sequence[Shard], local: Mapping[int, Mapping[str, Any]]) -> dict[int, tuple[int, int]]:
    """Return for each saved shard id the new shard's id and a node that holds it.

    ``local`` are `GET /collections/{name}/cluster` by node. Points are distributed over shards by shard id, and within
    a shard key by order; deleted shard keys leave gaps in the ids, which a new collection does not have.
    """
    held: dict[int, tuple[Any, int]] = {}
    for node, answer in sorted(local.items()):
        for shard in answer["local_shards"]:
            held.setdefault(int(shard["shard_id"]), (shard.get("shard_key"), node))
    new: dict[Any, list[int]] = defaultdict(list)
    for id_, (key, _) in sorted(held.items()):
        new[key].append(id_)
    old: dict[Any, list[int]] = defaultdict(list)
    for shard in sorted(shards, key=lambda each: each.id):
        old[shard.key].append(shard.id)
    found = {}
    for key, ids in old.items():
        if len(new[key]) != len(ids):
            raise BackupError(
                f"The new collection has {len(new[key])} shards{f' of key {key}' if key is not None else ''} on the "
                f"nodes that answer, and {len(ids)} were saved; bring every node back and restore again."
            )
        for before, after in zip(ids, new[key], strict=True):
            found[before] = (after, held[after][1])
    return found


def lacking(collection: Collection) -> int:
    """Return how many shards the set does not hold."""
    return collection.shard_count - len(collection.shards)


def changed_config(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return how a restored collection's configuration differs; fewer replicas on fewer nodes are no difference."""
    said = []
    for section in ("params", *SECTIONS):
        before, after = was["config"].get(section) or {}, now["config"].get(section) or {}
        for key in sorted(before.keys() | after.keys()):
            if key not in ("replication_factor", "write_consistency_factor") and before.get(key) != after.get(key):
                said.append(f"{section}.{key} is {after.get(key)} and was {before.get(key)}")
    fields = {field: schema["data_type"] for field, schema in (was.get("payload_schema") or {}).items()}
    found = {field: schema["data_type"] for field, schema in (now.get("payload_schema") or {}).items()}
    return said + [f"the index of {field} is missing" for field in sorted(fields.keys() - found.keys())]
