"""The files of one collection's shard, and how a rebuilt one takes the old one's place.

A directory holds `current`, which names one of the `shard-N` directories; that one and its write-ahead log are the
truth. A rebuild goes so:

1. flush, copy the current shard to `shard-(N+1).source`; from here on keep every write in a journal as well
2. a child process builds `shard-(N+1)` from the copy
3. the engine loads it, replays the journal on it and flushes: it now holds every acknowledged write
4. `current` is replaced by a rename that is flushed to disk; then the old directory goes

A crash before 4 leaves the old shard current with all its writes; one after 4 leaves the new one, which has them too.
Whatever `current` does not name is deleted at the next start.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from plinth.embedded.schema import index, shard_config
from plinth.system.atomic_files import write_whole

CURRENT = "current"
BUILT = "built.json"


def fingerprint(config: Mapping[str, Any], indexes: Mapping[str, Any]) -> str:
    """What a graph depends on: a shard built with another fingerprint is rebuilt."""
    tenants = sorted(field for field, schema in indexes.items() if isinstance(schema, dict) and schema.get("is_tenant"))
    relevant = {
        "vectors": config["params"]["vectors"],
        "hnsw": config["hnsw_config"],
        "quantization": config.get("quantization_config"),
        "tenants": tenants,
    }
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def create(path: Path, config: Mapping[str, Any], indexes: Mapping[str, Any]) -> edge.EdgeShard:
    """A new shard with its payload indexes, made before the first point so that links follow them."""
    path.mkdir(parents=True)
    shard = edge.EdgeShard.create(str(path), shard_config(config))
    for field, schema in indexes.items():
        shard.update(edge.UpdateOperation.create_field_index(field, index(schema)))
    mark_built(path, config, indexes)
    return shard


def mark_built(path: Path, config: Mapping[str, Any], indexes: Mapping[str, Any]) -> None:
    """Record what a shard was built with."""
    write_whole(path.with_name(f"{path.name}.{BUILT}"), json.dumps({"fingerprint": fingerprint(config, indexes)}))


def is_stale(path: Path, config: Mapping[str, Any], indexes: Mapping[str, Any]) -> bool:
    """Whether a shard was built with other settings than these."""
    built = path.with_name(f"{path.name}.{BUILT}")
    known = json.loads(built.read_text())["fingerprint"] if built.exists() else None
    return bool(known != fingerprint(config, indexes))


def current(directory: Path) -> Path | None:
    """The shard that counts; None in a new collection."""
    pointer = directory / CURRENT
    return directory / pointer.read_text().strip() if pointer.exists() else None


def make_current(path: Path) -> None:
    """Let a shard count from now on, and remove every other one."""
    write_whole(path.parent / CURRENT, path.name)
    clean(path.parent)


def clean(directory: Path) -> None:
    """Remove what `current` does not name: the remains of a rebuild that was cut off."""
    kept = current(directory)
    for entry in directory.glob("shard-*"):
        if kept is not None and entry.name in (kept.name, f"{kept.name}.{BUILT}"):
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def following(path: Path) -> Path:
    """The name of the shard that will replace this one."""
    return path.with_name(f"shard-{int(path.name.removeprefix('shard-')) + 1}")
