"""The dashboard of the gateway: its operations, latencies, cache and jobs."""

from __future__ import annotations

from plinth.load.slo import Slo
from plinth.monitoring.dashboards.builder import Board, Limits, graph, number

OPERATIONS = "plinth_gateway_operation_duration_seconds"
# Jobs write through the same core.
CALLERS = 'protocol!="job"'
SEARCHES = f'{CALLERS},operation=~"search|hybrid_search",outcome="OK"'
FAULTS = f'{CALLERS},outcome=~"UNAVAILABLE|INTERNAL|DEADLINE_EXCEEDED"'
HITS, MISSES = (f"sum(rate(plinth_gateway_cache_{kind}_total[5m]))" for kind in ("hits", "misses"))


def quantile(share: float, labels: str, *by: str) -> str:
    """Return the expression for a quantile of the duration of operations, in seconds."""
    return f"histogram_quantile({share}, sum by ({', '.join(('le', *by))}) (rate({OPERATIONS}_bucket{{{labels}}}[5m])))"


def count(labels: str, *by: str) -> str:
    """Return the expression for operations per second."""
    grouping = f" by ({', '.join(by)}) " if by else ""
    return f"sum{grouping}(rate({OPERATIONS}_count{{{labels}}}[5m]))"


def gateway(slo: Slo) -> Board:
    """Return the dashboard of the gateway."""
    search = slo.operations["search"]
    limits = Limits(search.p99_ms / 1000, (search.page_ms or search.p99_ms) / 1000)
    return Board(
        "plinth-gateway",
        "Plinth / Gateway",
        "What applications ask the gateway for, how it answers, its cache and its jobs.",
        (
            (
                "Callers",
                (
                    graph("Operations", "ops", (count(CALLERS, "operation"), "{{operation}}"), stacked=True),
                    graph(
                        "Searches",
                        "s",
                        *((quantile(share, SEARCHES), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
                        about="From the token's check to the answer, those of the cache too.",
                        limits=limits,
                    ),
                    graph("p99 of each operation", "s", (quantile(0.99, CALLERS, "operation"), "{{operation}}")),
                    graph(
                        "Errors of the gateway",
                        "percentunit",
                        (
                            f"({count(FAULTS)} or vector(0)) / {count(CALLERS)}",
                            "of all operations",
                        ),
                        about="UNAVAILABLE, INTERNAL and DEADLINE_EXCEEDED; what callers do wrong is beside it.",
                        limits=Limits(0.01, 0.05),
                    ),
                    graph("Outcomes but OK", "ops", (count(f'{CALLERS},outcome!="OK"', "outcome"), "{{outcome}}")),
                    graph(
                        "Requests",
                        "ops",
                        ("sum by (status) (rate(plinth_gateway_http_requests_total[5m]))", "REST {{status}}"),
                        ("sum by (code) (rate(plinth_gateway_grpc_requests_total[5m]))", "gRPC {{code}}"),
                    ),
                ),
            ),
            (
                "Jobs",
                (
                    graph(
                        "Jobs that have not ended well",
                        "short",
                        ("max by (status) (plinth_gateway_jobs)", "{{status}}"),
                    ),
                    graph(
                        "Longest wait for a worker",
                        "s",
                        ("max(plinth_gateway_job_longest_wait_seconds)", "of a job that is due"),
                        limits=Limits(60, 600),
                    ),
                    graph(
                        "Texts done", "ops", ("sum by (kind) (rate(plinth_gateway_job_items_total[5m]))", "{{kind}}")
                    ),
                    graph(
                        "What became of jobs",
                        "ops",
                        ("sum by (outcome) (rate(plinth_gateway_job_attempts_total[5m]))", "{{outcome}}"),
                        about="rejected: what was asked for cannot be done. retried: later. failed: given up.",
                    ),
                ),
            ),
            (
                "Parts",
                (
                    graph(
                        "Found in the cache",
                        "percentunit",
                        (f"{HITS} / ({HITS} + {MISSES})", "of searches"),
                        about="Nothing while nobody searches.",
                    ),
                    graph(
                        "Redis did not answer",
                        "ops",
                        ("rate(plinth_gateway_cache_failures_total[5m])", "cache, {{instance}}"),
                        ("rate(plinth_gateway_limit_failures_total[5m])", "limits, {{instance}}"),
                    ),
                    number(
                        "Lost audit lines",
                        "short",
                        "sum(increase(plinth_gateway_audit_failures_total[1h]))",
                        "In an hour.",
                        Limits(None, 1),
                    ),
                    graph(
                        "Processor",
                        "percentunit",
                        ('rate(process_cpu_seconds_total{job=~"gateway.*"}[5m])', "{{job}} {{instance}}"),
                        about="Of one core; a process uses no more than about one.",
                    ),
                    graph(
                        "Memory",
                        "bytes",
                        ('process_resident_memory_bytes{job=~"gateway.*"}', "{{job}} {{instance}}"),
                    ),
                ),
            ),
        ),
    )
