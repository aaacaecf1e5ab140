"""Qdrant, its collections, its cluster."""

from __future__ import annotations

from plinth.load.slo import Slo
from plinth.monitoring.dashboards.builder import Board, Limits, Variable, graph

COLLECTION = Variable("collection", "Collection", "label_values(plinth_collection_status, collection)")
NODE = Variable("node", "Node", 'label_values(up{job="qdrant"}, instance)')
PROBED = 'rate(plinth_probe_search_duration_seconds_bucket{collection=~"$collection"}[15m])'
WORK = (
    'sum by (id) (rate(collection_hardware_metric_cpu{id=~"$collection"}[5m])) '
    "/ on () group_left () sum(rate(collection_hardware_metric_cpu[5m]))"
)
ON_NODE = 'job="qdrant",instance=~"$node"'


def qdrant(slo: Slo) -> Board:
    """One node or several, from the inside."""
    search = slo.operations["search"]
    return Board(
        "plinth-qdrant",
        "Plinth / Qdrant",
        "Requests by endpoint, and what the process takes.",
        (
            (
                "Requests",
                (
                    graph(
                        "Requests by endpoint",
                        "reqps",
                        (
                            f"sum by (method, endpoint) (rate(rest_responses_total{{{ON_NODE}}}[5m]))",
                            "{{method}} {{endpoint}}",
                        ),
                        (f"sum by (endpoint) (rate(grpc_responses_total{{{ON_NODE}}}[5m]))", "{{endpoint}}"),
                        width=12,
                    ),
                    graph(
                        "Latency by endpoint, p95",
                        "s",
                        (_by_endpoint("rest"), "{{endpoint}}"),
                        (_by_endpoint("grpc"), "{{endpoint}}"),
                        about="Answers with status 200 alone over REST; all over gRPC.",
                        limits=Limits(search.p95_ms / 1000, (search.page_ms or search.p95_ms) / 1000),
                        width=12,
                    ),
                    graph(
                        "Answers by status",
                        "reqps",
                        (f"sum by (status) (rate(rest_responses_total{{{ON_NODE}}}[5m]))", "REST {{status}}"),
                        (f"sum by (status) (rate(grpc_responses_total{{{ON_NODE}}}[5m]))", "gRPC {{status}}"),
                        width=12,
                    ),
                    graph(
                        "Updates that wait",
                        "short",
                        (f"sum by (instance) (collection_update_queue_length{{{ON_NODE}}})", "{{instance}}"),
                        limits=Limits(None, 1000),
                        width=12,
                    ),
                ),
            ),
            (
                "The process",
                (
                    graph(
                        "Memory of its own",
                        "bytes",
                        (f"memory_resident_bytes{{{ON_NODE}}}", "{{instance}}"),
                        ("max(plinth_qdrant_memory_limit_bytes)", "limit"),
                        about="Its heap, without the page cache of mapped files.",
                    ),
                    graph(
                        "Page faults from disk",
                        "ops",
                        (f"rate(process_major_page_faults_total{{{ON_NODE}}}[5m])", "{{instance}}"),
                        limits=Limits(None, 500),
                    ),
                    graph(
                        "Open files and memory maps",
                        "percentunit",
                        (f"process_open_fds{{{ON_NODE}}} / (process_max_fds{{{ON_NODE}}} > 0)", "files {{instance}}"),
                        (f"process_open_mmaps{{{ON_NODE}}} / (system_max_mmaps{{{ON_NODE}}} > 0)", "maps {{instance}}"),
                        about="Of what the process may have.",
                        limits=Limits(0.8, 0.9),
                    ),
                    graph("Threads", "short", (f"process_threads{{{ON_NODE}}}", "{{instance}}")),
                    graph(
                        "Optimizations and snapshots that run",
                        "short",
                        (
                            f"sum by (instance) (collection_running_optimizations{{{ON_NODE}}})",
                            "optimizations {{instance}}",
                        ),
                        (f"sum by (instance) (snapshot_creation_running{{{ON_NODE}}})", "snapshots {{instance}}"),
                    ),
                    graph(
                        "Recovery mode",
                        "short",
                        (f"app_status_recovery_mode{{{ON_NODE}}}", "{{instance}}"),
                        limits=Limits(None, 1),
                    ),
                ),
            ),
        ),
        (NODE,),
    )


def collections(slo: Slo) -> Board:
    """Each collection: state, size, test searches."""
    search = slo.operations["search"]
    one = 'collection=~"$collection"'
    return Board(
        "plinth-collections",
        "Plinth / Collections",
        "Each collection: its state, its size, its test searches.",
        (
            (
                "State",
                (
                    graph(
                        "Not green",
                        "short",
                        (f'plinth_collection_status{{{one},status!="green"}}', "{{collection}} {{status}}"),
                    ),
                    graph(
                        "Optimizer without error",
                        "short",
                        (f"plinth_collection_optimizer_ok{{{one}}}", "{{collection}}"),
                    ),
                    graph("Segments", "short", (f"plinth_collection_segments{{{one}}}", "{{collection}}")),
                ),
            ),
            (
                "Size",
                (
                    graph("Points", "short", ('sum by (id) (collection_points{id=~"$collection"})', "{{id}}")),
                    graph(
                        "Points, change in a day",
                        "short",
                        ('sum by (id) (delta(collection_points{id=~"$collection"}[1d]))', "{{id}}"),
                    ),
                    graph(
                        "Vectors in an index",
                        "short",
                        (f"plinth_collection_indexed_vectors{{{one}}}", "{{collection}}"),
                    ),
                    graph(
                        "Work by collection",
                        "percentunit",
                        (
                            WORK,
                            "{{id}}",
                        ),
                        about="Share of Qdrant's own measure of the work of requests.",
                    ),
                    graph(
                        "Updates that wait",
                        "short",
                        ('sum by (id) (collection_update_queue_length{id=~"$collection"})', "{{id}}"),
                    ),
                    graph(
                        "Newest snapshot on the server",
                        "s",
                        (f"time() - plinth_collection_last_snapshot_timestamp_seconds{{{one}}}", "{{collection}}"),
                        about="Backups fetch their snapshots and delete them; what stays was made by hand.",
                    ),
                ),
            ),
            (
                "Test searches",
                (
                    graph(
                        "Latency, p95",
                        "s",
                        (
                            f"histogram_quantile(0.95, sum by (le, collection) ({PROBED}))",
                            "{{collection}}",
                        ),
                        limits=Limits(search.p95_ms / 1000, (search.page_ms or search.p95_ms) / 1000),
                    ),
                    graph(
                        "Recall",
                        "percentunit",
                        (f"plinth_probe_recall_ratio{{{one}}}", "{{collection}} {{band}}"),
                        limits=Limits(slo.recall.overall, slo.recall.large_tenant, falling=True),
                    ),
                    graph(
                        "Searches that fail",
                        "ops",
                        (f'rate(plinth_probe_searches_total{{{one},result="error"}}[5m])', "{{collection}}"),
                    ),
                ),
            ),
        ),
        (COLLECTION,),
    )


def cluster(_slo: Slo) -> Board:
    """Peers, consensus, replicas. A node alone has none of the first row."""
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


def _by_endpoint(api: str) -> str:
    answers = f"rate({api}_responses_duration_seconds_bucket{{{ON_NODE}}}[5m])"
    return f"histogram_quantile(0.95, sum by (le, endpoint) ({answers}))"
