"""The dashboard Cluster."""

from __future__ import annotations

from plinth.load.slo import Slo
from plinth.monitoring.dashboards.builder import Board, Limits, graph


def cluster(_slo: Slo) -> Board:
    """Return the dashboard of peers, consensus and replicas. A single node has nothing in the first row."""
    return Board(
        "plinth-cluster",
        "Plinth / Cluster",
        "Peers, consensus and replicas. A node alone shows nothing in the first row.",
        (
            (
                "Consensus",
                (
                    graph(
                        "Peers that each peer knows",
                        "short",
                        ("cluster_peers_total", "{{instance}}"),
                        ("max(plinth_qdrant_expected_peers)", "wanted"),
                    ),
                    graph("Consensus works", "short", ('cluster_working_state{state="working"}', "{{instance}}")),
                    graph(
                        "Operations that wait",
                        "short",
                        ("cluster_pending_operations_total", "{{instance}}"),
                        limits=Limits(None, 1),
                    ),
                    graph("Term", "short", ("cluster_term", "{{instance}}"), about="A step is an election."),
                    graph(
                        "Commit",
                        "short",
                        ("max by (instance) (cluster_commit)", "{{instance}}"),
                        about="All peers should be level.",
                    ),
                ),
            ),
            (
                "Replicas",
                (
                    graph(
                        "Shards with a replica that is not active",
                        "short",
                        ("max(collection_dead_replicas)", "shards"),
                        limits=Limits(None, 1),
                    ),
                    graph(
                        "Least active replicas of a shard",
                        "short",
                        ("plinth_collection_active_replicas_min", "{{collection}}"),
                    ),
                    graph(
                        "Missing replicas",
                        "short",
                        (
                            "plinth_collection_replication_factor - plinth_collection_active_replicas_min",
                            "{{collection}}",
                        ),
                        limits=Limits(None, 1),
                    ),
                    graph(
                        "Shards on their way",
                        "short",
                        ("sum by (instance) (collection_shard_transfer_incoming)", "to {{instance}}"),
                        ("sum by (instance) (collection_shard_transfer_outgoing)", "from {{instance}}"),
                    ),
                    graph(
                        "Points by node",
                        "short",
                        ("sum by (instance) (collection_points)", "{{instance}}"),
                        stacked=True,
                    ),
                ),
            ),
        ),
    )
