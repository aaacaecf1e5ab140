"""The state of a cluster, and conclusions from it: pure functions over Qdrant's REST responses.

Every target that runs several nodes shares these: when a node is ready again, and whether one may be removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# A Listener replica counts as ready: it takes writes and serves no reads, by design.
WELL = ("Active", "Listener")


@dataclass(frozen=True)
class Replica:
    """A copy of a shard on a peer, as the queried node sees it."""

    collection: str
    shard: int
    peer: int
    state: str


@dataclass(frozen=True)
class View:
    """The cluster as one node sees it.

    ``peers`` are host names by peer id, ``replicas`` every copy of every shard, ``transfers`` the number of shards on
    their way from one peer to another, ``commit`` the last entry of the cluster's log that the node has committed.
    """

    peer: int
    peers: Mapping[int, str]
    leader: int | None
    pending: int
    replicas: tuple[Replica, ...]
    transfers: int
    commit: int = 0

    def peer_of(self, host: str) -> int | None:
        """Return the id of the peer at a host name, or None when it is not a member."""
        return next((peer for peer, name in self.peers.items() if name == host), None)


def view(cluster: Mapping[str, Any], collections: Mapping[str, Mapping[str, Any]]) -> View:
    """Parse `GET /cluster` and, by name, `GET /collections/{name}/cluster`."""
    own = int(cluster["peer_id"])
    replicas: list[Replica] = []
    for name, found in sorted(collections.items()):
        replicas += [Replica(name, shard["shard_id"], own, shard["state"]) for shard in found["local_shards"]]
        replicas += [
            Replica(name, shard["shard_id"], int(shard["peer_id"]), shard["state"]) for shard in found["remote_shards"]
        ]
    raft = cluster["raft_info"]
    return View(
        peer=own,
        peers={int(peer): urlsplit(about["uri"]).hostname or "" for peer, about in cluster["peers"].items()},
        leader=raft["leader"],
        pending=raft["pending_operations"],
        replicas=tuple(replicas),
        transfers=sum(len(found["shard_transfers"]) for found in collections.values()),
        commit=raft["commit"],
    )


def unsettled(own: View, others: Sequence[View], expected: int) -> str | None:
    """Return why a restarted node is not ready, or None when the next one may be restarted.

    ``own`` is the node's own view and ``others`` those of the rest of its cluster: a node that has lost its peers
    reports no problem itself. ``expected`` is the minimum number of peers.
    """
    if len(own.peers) < expected:
        return f"it knows {len(own.peers)} of {expected} peers"
    if own.leader is None:
        return "the cluster has no leader"
    if len(own.peers) > 1 and not others:
        return "no other peer answers"
    for seen in others:
        if own.peer not in seen.peers:
            return f"peer {seen.peer} does not know it: it founded a cluster of its own"
    for seen in (own, *others):
        if seen.transfers:
            return f"{seen.transfers} shard transfer(s) are under way"
        behind = [replica for replica in seen.replicas if replica.state not in WELL]
        if behind:
            first = behind[0]
            return (
                f"{len(behind)} replica(s) are not active as peer {seen.peer} sees it, first shard {first.shard} of "
                f"{first.collection} on peer {first.peer}: {first.state}"
            )
    behind_by = max(seen.commit for seen in (own, *others)) - own.commit
    if behind_by:
        return f"it is {behind_by} entries of the cluster's log behind"
    return None


def describe(seen: View) -> list[dict[str, Any]]:
    """Return a record for each peer: name, id, whether it leads, its number of replicas and those not active."""
    lines = []
    for peer, host in sorted(seen.peers.items(), key=lambda item: item[1]):
        held = held_by(seen, host)
        lines.append(
            {
                "peer": host,
                "id": peer,
                "leader": peer == seen.leader,
                "replicas": len(held),
                "not_active": [f"{r.collection}/{r.shard}: {r.state}" for r in held if r.state not in WELL],
            }
        )
    return lines


def held_by(seen: View, host: str) -> tuple[Replica, ...]:
    """Return the replicas on the peer at a host name."""
    peer = seen.peer_of(host)
    return tuple(replica for replica in seen.replicas if replica.peer == peer)


def refuse_removal(seen: View, host: str) -> str | None:
    """Return why the node at a host name may not be removed, as a sentence; None once it is not a member any more."""
    if seen.peer_of(host) is None:
        return None
    held = held_by(seen, host)
    what = f"holds {len(held)} shard replica(s)" if held else "holds no shard and is a member of the cluster"
    return (
        f"Node {host} still {what}, and stopping it would take them along; "
        "move its shards to other peers and remove the peer from the cluster first, then run up again."
    )
