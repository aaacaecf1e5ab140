"""The dashboard of service logs and audit logs; it exists with plinth:monitoring.loki."""

from __future__ import annotations

from plinth.load.slo import Slo
from plinth.monitoring.dashboards.builder import LOGS, Board, Limits, Variable, graph, lines

SERVICE = Variable("service", "Service", "label_values(service)", LOGS)
LEVEL = Variable("level", "Level", "label_values(level)", LOGS)
PRINTED = '{kind="printed",service=~"$service",level=~"$level"}'
ASKED = '{kind="audited",service="qdrant"} | json'
CALLED = '{kind="audited",service=~"gateway.*"} | json'


def logs(_slo: Slo) -> Board:
    """Return the dashboard of log lines by service and level, and of the audit logs of Qdrant and the gateway."""
    return Board(
        "plinth-logs",
        "Plinth / Logs",
        "What services print, and who asked Qdrant and the gateway for what. Needs plinth:monitoring.loki.",
        (
            (
                "Services",
                (
                    graph(
                        "Lines by level",
                        "short",
                        (f"sum by (level) (count_over_time({PRINTED} [$__auto]))", "{{level}}"),
                        stacked=True,
                        source=LOGS,
                    ),
                    graph(
                        "Lines by service",
                        "short",
                        (f"sum by (service) (count_over_time({PRINTED} [$__auto]))", "{{service}}"),
                        stacked=True,
                        source=LOGS,
                    ),
                    graph(
                        "Errors by service",
                        "short",
                        (
                            'sum by (service) (count_over_time({kind="printed",level=~"error|fatal"} [$__auto]))',
                            "{{service}}",
                        ),
                        source=LOGS,
                    ),
                    lines("What they say", PRINTED),
                ),
            ),
            (
                "Qdrant's audit log",
                (
                    graph(
                        "By collection and operation",
                        "short",
                        (
                            f"sum by (collection, method) (count_over_time({ASKED} [$__auto]))",
                            "{{collection}} {{method}}",
                        ),
                        about="Reads and writes. Health checks, metrics and what peers ask each other are not in it.",
                        stacked=True,
                        width=12,
                        source=LOGS,
                    ),
                    graph(
                        "Refused, by who asked",
                        "short",
                        (
                            f'topk(10, sum by (remote, subject) (count_over_time({ASKED} | level="warn" [$__auto])))',
                            "{{remote}} {{subject}}",
                        ),
                        about="A key or token that does not reach as far. None is good.",
                        limits=Limits(None, 1),
                        width=12,
                        source=LOGS,
                    ),
                    lines(
                        "Who asked for what",
                        f'{ASKED} | line_format "{{{{.result}}}} {{{{.method}}}} {{{{.collection}}}} {{{{.api}}}} '
                        '{{.auth_type}} {{.subject}} {{.remote}} {{.error}}"',
                        about="No bodies, so no vectors and no payloads.",
                    ),
                ),
            ),
            (
                "The gateway's audit log",
                (
                    graph(
                        "By organisation and operation",
                        "short",
                        (
                            f"topk(20, sum by (org_id, operation) (count_over_time({CALLED} [$__auto])))",
                            "{{org_id}} {{operation}}",
                        ),
                        about="The twenty most. What jobs write is the worker's.",
                        stacked=True,
                        width=12,
                        source=LOGS,
                    ),
                    graph(
                        "Refused or failed, by organisation",
                        "short",
                        (
                            f'topk(10, sum by (org_id, outcome) (count_over_time({CALLED} | outcome!="OK" [$__auto])))',
                            "{{org_id}} {{outcome}}",
                        ),
                        width=12,
                        source=LOGS,
                    ),
                    lines(
                        "Who called what",
                        f'{CALLED} | line_format "{{{{.outcome}}}} {{{{.operation}}}} {{{{.collection}}}} '
                        '{{.count}} {{.org_id}} {{.user_id}} {{.duration_ms}} ms {{.protocol}} {{.request_id}}"',
                        about="No vectors, payloads, texts, filters or tokens.",
                    ),
                ),
            ),
            (
                "Their way here",
                (
                    graph(
                        "Lines delivered",
                        "short",
                        ("rate(fluentbit_output_proc_records_total[5m])", "a second"),
                        width=12,
                    ),
                    graph(
                        "Not delivered",
                        "short",
                        ("rate(fluentbit_output_retries_total[5m])", "tried again, a second"),
                        ("rate(fluentbit_output_dropped_records_total[5m])", "lost, a second"),
                        limits=Limits(None, 1),
                        width=12,
                    ),
                ),
            ),
        ),
        (SERVICE, LEVEL),
    )
