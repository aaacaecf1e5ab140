"""The dashboard Collections."""

from __future__ import annotations

from plinth.load.slo import Slo
from plinth.monitoring.dashboards.builder import Board, Limits, graph
from plinth.monitoring.dashboards.qdrant import COLLECTION, PROBED, WORK


def collections(slo: Slo) -> Board:
    """Return the dashboard of each collection: state, size, probe queries."""
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
