"""The dashboard Overview: availability, latency, and capacity."""

from __future__ import annotations

from plinth.load.slo import Slo
from plinth.monitoring.dashboards.builder import Board, Limits, graph, number
from plinth.monitoring.slo_rules import late
from plinth.qdrant.metric_names import APIS

_PROBED = "rate(plinth_probe_search_duration_seconds_bucket[5m])"
_DISK = (
    'node_filesystem_avail_bytes{fstype!~"tmpfs|overlay|squashfs"} '
    '/ node_filesystem_size_bytes{fstype!~"tmpfs|overlay|squashfs"}'
)


def overview(slo: Slo) -> Board:
    """Return the dashboard of availability, latency, and capacity."""
    search = slo.operations["search"]
    target, page = search.p95_ms / 1000, (search.page_ms or search.p95_ms) / 1000
    latency = Limits(target, page)
    budget = 1 - slo.promises.availability
    return Board(
        "plinth-overview",
        "Plinth / Overview",
        "Is it up, is it fast, will it stay so? Start here.",
        (
            (
                "Is it up?",
                (
                    number("Qdrant nodes up", "short", 'sum(up{job="qdrant"})', limits=Limits(1, 1, falling=True)),
                    number("Services not seen", "short", "count(up == 0) or vector(0)", limits=Limits(None, 1)),
                    number(
                        "Alerts that fire",
                        "short",
                        'count(ALERTS{alertstate="firing",severity=~"page|ticket"}) or vector(0)',
                        limits=Limits(1, 3),
                    ),
                    number(
                        "Collections not green",
                        "short",
                        'sum(plinth_collection_status{status!="green"})',
                        limits=Limits(1, 3),
                    ),
                    number("Postgres", "short", "min(pg_up)", limits=Limits(1, 1, falling=True)),
                    number("Redis", "short", "min(redis_up)", limits=Limits(1, 1, falling=True)),
                ),
            ),
            (
                "Is it fast?",
                (
                    graph(
                        "Search latency",
                        "s",
                        *((_quantile(api.name, api.search, 0.95), f"p95 {api.name}") for api in APIS),
                        *((_quantile(api.name, api.search, 0.5), f"p50 {api.name}") for api in APIS),
                        about="Between two edges of the histogram a quantile is a guess; the shares are exact.",
                        limits=latency,
                    ),
                    graph(
                        f"Searches over {search.p95_ms:g} ms",
                        "percentunit",
                        (f"{late(search.p95_ms)}5m", "{{api}}, 5 minutes"),
                        (f"{late(search.p95_ms)}6h", "{{api}}, 6 hours"),
                        about="A p95 holds while this share is under 5 %.",
                        limits=Limits(None, 1 - slo.promises.within_target),
                    ),
                    graph(
                        "Requests that fail",
                        "percentunit",
                        ("job_api:qdrant_errors:ratio_rate5m", "{{api}}, 5 minutes"),
                        ("job_api:qdrant_errors:ratio_rate6h", "{{api}}, 6 hours"),
                        about="Errors and timeouts of the server. Lines: six times the promise, and 14.4 times.",
                        limits=Limits(6 * budget, 14.4 * budget),
                    ),
                    graph(
                        "Requests",
                        "reqps",
                        ("job_api:qdrant_requests:rate5m", "{{api}}"),
                        ("job_api:qdrant_search:rate5m", "searches over {{api}}"),
                    ),
                    graph(
                        "Test searches",
                        "s",
                        (
                            f"histogram_quantile(0.95, sum by (le) ({_PROBED}))",
                            "p95",
                        ),
                        limits=latency,
                        about="The exporter's own searches: there is an answer here even when nobody searches.",
                    ),
                    graph(
                        "Recall of test searches",
                        "percentunit",
                        ("plinth_probe_recall_ratio", "{{collection}} {{band}}"),
                        limits=Limits(slo.recall.overall, slo.recall.large_tenant, falling=True),
                    ),
                ),
            ),
            (
                "Will it stay so?",
                (
                    graph(
                        "Disk that is left", "percentunit", (_DISK, "{{mountpoint}}"), limits=Limits(0.3, 0.15, True)
                    ),
                    graph(
                        "Memory that is left",
                        "percentunit",
                        ("node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "{{instance}}"),
                        limits=Limits(0.2, 0.1, falling=True),
                    ),
                    graph("Points", "short", ("sum by (id) (collection_points)", "{{id}}"), stacked=True),
                    number(
                        "Last good backup",
                        "s",
                        "time() - (plinth_backup_last_success_timestamp_seconds > 0)",
                        limits=Limits(slo.promises.backup_age_h * 3600, 2 * slo.promises.backup_age_h * 3600),
                        zero="never",
                    ),
                    number(
                        "Last good drill",
                        "s",
                        "time() - (plinth_drill_last_success_timestamp_seconds > 0)",
                        limits=Limits(slo.promises.drill_age_days * 86400, 2 * slo.promises.drill_age_days * 86400),
                        zero="never",
                    ),
                ),
            ),
        ),
    )


def _quantile(api: str, search: str, quantile: float) -> str:
    return (
        f"histogram_quantile({quantile:g}, sum by (le) (rate({api}_responses_duration_seconds_bucket{{{search}}}[5m])))"
    )
