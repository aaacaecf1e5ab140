"""The dashboard Qdrant."""

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
    """Return the dashboard of one or more Qdrant nodes, by their own metrics."""
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


def _by_endpoint(api: str) -> str:
    answers = f"rate({api}_responses_duration_seconds_bucket{{{ON_NODE}}}[5m])"
    return f"histogram_quantile(0.95, sum by (le, endpoint) ({answers}))"
