"""Plan which shard is backed up from which node: pure functions over REST answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Take:
    """One shard and the node to read it from; ``node`` is its index in the settings' list."""

    shard: int
    key: str | int | None
    node: int
    peer: int


@dataclass(frozen=True)
class Plan:
    """The shards of one collection; ``failures`` are messages about those that cannot be backed up."""

    shard_count: int
    takes: tuple[Take, ...]
    failures: tuple[str, ...]


def plan_collection(collection: str, answers: Mapping[int, Mapping[str, Any]], load: Counter[int]) -> Plan:
    """Choose a node with an Active replica for each shard; ``load`` spreads the shards over the nodes.

    ``answers`` are `GET /collections/{collection}/cluster` by node, of the nodes that answer. Each node's report about
    its own replicas counts, not what its peers report about them.
    """
    if not answers:
        return Plan(0, (), (f"No node answers for {collection}.",))
    holders: dict[int, list[tuple[int, int]]] = {}
    keys: dict[int, str | int | None] = {}
    states: dict[int, list[str]] = {}
    for node, answer in sorted(answers.items()):
        for local in answer["local_shards"]:
            if local["state"] == "Active":
                holders.setdefault(local["shard_id"], []).append((node, int(answer["peer_id"])))
        for seen in (*answer["local_shards"], *answer["remote_shards"]):
            keys.setdefault(seen["shard_id"], seen.get("shard_key"))
            states.setdefault(seen["shard_id"], []).append(seen["state"])
    takes, failures = [], list(_resharding(collection, answers))
    for shard in sorted(states):
        if shard not in holders:
            what = ", ".join(sorted(set(states[shard])))
            failures.append(
                f"Shard {shard} of {collection} has no Active replica on a node that answers ({what}); "
                "bring its node back."
            )
            continue
        node, peer = min(holders[shard], key=lambda holder: (load[holder[0]], holder[0]))
        load[node] += 1
        takes.append(Take(shard, keys[shard], node, peer))
    count = max(int(answer["shard_count"]) for answer in answers.values())
    if len(states) < count:
        failures.append(f"{collection} has {count} shards and the nodes that answer know {len(states)} of them.")
    return Plan(count, tuple(takes), tuple(failures))


def _resharding(collection: str, answers: Mapping[int, Mapping[str, Any]]) -> Sequence[str]:
    moving = any(answer.get("resharding_operations") for answer in answers.values())
    return (
        [f"{collection} is being resharded, and points move from shard to shard; back up again after it."]
        if moving
        else ()
    )
