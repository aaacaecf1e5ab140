"""Create a saved collection again under a new name, and compare it with the saved one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from plinth.backup.manifest import Collection, Piece
from plinth.backup.session import BackupError, Say
from plinth.backup.stores.qdrant import probe_queries, shard_layout
from plinth.backup.stores.qdrant.node_client import Node
from plinth.backup.temporary.launch import Launcher
from plinth.qdrant.client import QdrantError, collection_path

# The copy of a replica to another node takes time.
SETTLE_DEADLINE_S = 3600.0
Fetch = Callable[[str], tuple[Path, Piece]]


def rebuild(connections: Sequence[Node], saved: Collection, name: str, fetch: Fetch, say: Say) -> None:
    """Create ``saved`` on a real server of any number of nodes; ``fetch`` returns the file of a shard by its path."""
    if shard_layout.lacking(saved):
        raise BackupError(
            f"The set lacks {shard_layout.lacking(saved)} of {saved.shard_count} shards of {saved.name}; "
            "take another set."
        )
    first, path = connections[0], collection_path(name)
    first.call("PUT", path, shard_layout.creation(saved.described, len(connections)))
    for key, number in shard_layout.shard_keys(saved.shards):
        first.call("PUT", f"{path}/shards", {"shard_key": key, "shards_number": number})
    fan_out = saved.described["config"]["params"].get("read_fan_out_factor")
    if fan_out is not None:
        first.call("PATCH", path, {"params": {"read_fan_out_factor": fan_out}})
    for index in shard_layout.indexes(saved.described):
        first.call("PUT", f"{path}/index?wait=true", index)
    where = shard_layout.places(saved.shards, _clusters(connections, path))
    for shard in saved.shards:
        new, number = where[shard.id]
        file, piece = fetch(shard.path)
        say(f"restoring qdrant {saved.name} shard {shard.id} to {connections[number].url} as {name} shard {new}")
        connections[number].upload(f"{path}/shards/{new}/snapshots/upload", file, piece.sha256)
        _settle(connections, path, name)


def recover(
    node: Node, saved: Collection, name: str, fetch: Fetch, snapshots: Path | None, launcher: Launcher, say: Say
) -> None:
    """Create ``saved`` on the embedded engine, which reads a snapshot only from its own directory."""
    if snapshots is None:
        raise BackupError(
            f"The embedded engine at {node.url} recovers from its own snapshots directory, and none is configured; "
            "run the restore on its machine."
        )
    if len(saved.shards) != 1 or shard_layout.lacking(saved):
        raise BackupError(f"The set lacks {saved.name}; take another set.")
    (shard,) = saved.shards
    file, piece = fetch(shard.path)
    say(f"restoring qdrant {saved.name} as {name}")
    with file.open("rb") as content:
        placed = launcher.place(snapshots, content)
    try:
        body = {"location": placed.as_uri(), "priority": "snapshot", "checksum": piece.sha256}
        node.call("PUT", f"{collection_path(name)}/snapshots/recover?wait=true", body)
    finally:
        launcher.remove(placed)


def differences(node: Node, saved: Collection, name: str) -> list[str]:
    """Return how a restored collection differs from the saved one, a message each."""
    found: dict[str, Any] = node.call("GET", collection_path(name))
    said = [f"{saved.name}: {words}" for words in shard_layout.changed_config(saved.described, found)]
    count = node.count(name)
    if saved.points and not saved.points.holds(count):
        wanted = saved.points.low if saved.points.low == saved.points.high else f"{saved.points.low} or more"
        said.append(f"{saved.name} has {count} points and had {wanted}")
    changed = set(saved.samples) - set(probe_queries.again(node, name, saved.samples))
    if changed:
        said.append(f"{saved.name}: {len(changed)} of {len(saved.samples)} sampled points are not as they were")
    answers = probe_queries.asked(node, name, probe_queries.bodies_of(saved.questions))
    wrong = sum(not probe_queries.alike(was, now) for was, now in zip(saved.questions, answers, strict=True))
    if wrong:
        said.append(f"{saved.name}: {wrong} of {len(saved.questions)} searches find something else than before")
    return said


def _clusters(connections: Sequence[Node], path: str) -> dict[int, dict[str, Any]]:
    return {number: node.call("GET", f"{path}/cluster") for number, node in enumerate(connections)}


def _settle(connections: Sequence[Node], path: str, name: str) -> None:
    """Wait until every replica is Active: the others are copied from the uploaded one."""
    deadline = time.monotonic() + SETTLE_DEADLINE_S
    while time.monotonic() < deadline:
        try:
            answers = _clusters(connections, path).values()
        except QdrantError as error:
            if error.status != 404:
                raise
            continue
        states = {shard["state"] for answer in answers for shard in (*answer["local_shards"], *answer["remote_shards"])}
        if states <= {"Active"} and not any(answer["shard_transfers"] for answer in answers):
            return
        time.sleep(0.2)
    raise BackupError(f"The replicas of {name} are not all active an hour after the upload; see `plinth status`.")
