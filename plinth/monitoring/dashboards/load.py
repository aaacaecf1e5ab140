"""The dashboard Load."""

from __future__ import annotations

from plinth.load.slo import Slo
from plinth.monitoring.dashboards.builder import Board, Limits, graph, number


def load(slo: Slo) -> Board:
    """Return the dashboard of the load gate's last run, and of the server during it."""
    return Board(
        "plinth-load",
        "Plinth / Load runs",
        "What the load gate measured, run after run. A run is a mark on every dashboard.",
        (
            (
                "Last run",
                (
                    number("Since", "s", "time() - plinth_load_last_timestamp_seconds"),
                    number(
                        "Passed", "short", 'plinth_load_last_verdict{verdict="pass"}', limits=Limits(1, 1, falling=True)
                    ),
                    number(
                        "Recall",
                        "percentunit",
                        "plinth_load_recall_ratio",
                        limits=Limits(slo.recall.overall, slo.recall.overall, True),
                    ),
                ),
            ),
            (
                "By operation",
                (
                    graph(
                        "p95 against its target",
                        "percentunit",
                        ("plinth_load_p95_seconds / plinth_load_target_seconds", "{{operation}}"),
                        limits=Limits(0.8, 1),
                    ),
                    graph("p95", "s", ("plinth_load_p95_seconds", "{{operation}}")),
                    graph("p99", "s", ("plinth_load_p99_seconds", "{{operation}}")),
                    graph("Rate", "reqps", ("plinth_load_rate", "{{operation}}")),
                    graph("Errors", "short", ("plinth_load_errors", "{{operation}}"), limits=Limits(None, 1)),
                ),
            ),
        ),
    )
