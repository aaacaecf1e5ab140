"""Recording rules and multi-window burn-rate alerts from load/slo.yaml.

A burn rate of 1 spends the budget of 30 days in 30 days. An alert pages at 14.4 over an hour (2 % of the budget) or 6
over six hours (5 %), and opens a ticket at 3 over a day or 1 over three days (10 % each). Each long window goes with
one that is a twelfth as long, so that an alert ends soon after the incident does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from plinth.load.slo import Slo
from plinth.qdrant.metric_names import APIS, EDGES, Api
from plinth.system.timestamps import SKEW_S

MIN_RATE = 0.1
RUNBOOKS = "monitoring/runbooks"

Rule = dict[str, Any]


@dataclass(frozen=True)
class Burn:
    """A burn rate over a long and a short window."""

    rate: float
    long: str
    short: str


PAGE = (Burn(14.4, "1h", "5m"), Burn(6, "6h", "30m"))
TICKET = (Burn(3, "1d", "2h"), Burn(1, "3d", "6h"))
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


def rule_groups(slo: Slo) -> list[dict[str, Any]]:
    """Return Prometheus' rule groups: a single one, whose rules run in order, so that alerts see the new recordings."""
    return [{"name": "slo", "rules": [*_records(slo), *_search(slo), *_errors(slo), _recall(slo), *_ages(slo)]}]


def late(target_ms: float) -> str:
    """Return the recorded share of searches that took longer than a target, without its window."""
    return f"job_api:qdrant_search_over_{target_ms:g}ms:ratio_rate"


def _records(slo: Slo) -> Iterator[Rule]:
    for window in WINDOWS:
        for api in APIS:
            answered = f"rate({api.name}_responses_duration_seconds_count{{{api.search}}}[{window}])"
            yield _record(f"job_api:qdrant_search:rate{window}", f"sum by (job) ({answered})", api)
            for target_ms in _targets_ms(slo):
                within = (
                    f"rate({api.name}_responses_duration_seconds_bucket"
                    f'{{{api.search},le="{_edge(target_ms):g}"}}[{window}])'
                )
                share = f"1 - sum by (job) ({within}) / sum by (job) ({answered})"
                yield _record(f"{late(target_ms)}{window}", share, api)
            total = f"sum by (job) (rate({api.name}_responses_total[{window}]))"
            failed = f"sum by (job) (rate({api.name}_responses_total{{{api.errors}}}[{window}]))"
            yield _record(f"job_api:qdrant_requests:rate{window}", total, api)
            # A metric without an error has no such series; the share is then zero, and not absent.
            yield _record(f"job_api:qdrant_errors:ratio_rate{window}", f"({failed} or 0 * {total}) / {total}", api)


def _search(slo: Slo) -> Iterator[Rule]:
    search, budget = slo.operations["search"], 1 - slo.promises.within_target
    share = f"{slo.promises.within_target:.0%}"
    if search.page_ms:
        name = late(search.page_ms)
        yield _alert(
            "QdrantSearchSlow",
            f"{_both(name, budget, Burn(1, '1h', '5m'))}\n{_busy('job_api:qdrant_search:rate5m')}",
            "page",
            f"Search p95 over {{{{ $labels.api }}}} is above {search.page_ms:g} ms.",
            f"{{{{ $value | humanizePercentage }}}} of the last hour's searches took over {search.page_ms:g} ms, and "
            f"it goes on; {share} should be quicker. Users wait for their results.",
            hold="2m",
        )
    yield _alert(
        "QdrantSearchBudgetBurn",
        f"{_any(late(search.p95_ms), budget, TICKET)}\n{_busy('job_api:qdrant_search:rate2h')}",
        "ticket",
        f"Search p95 over {{{{ $labels.api }}}} has been above its target of {search.p95_ms:g} ms for long.",
        f"{{{{ $value | humanizePercentage }}}} of the searches of a day or of three took longer than "
        f"{search.p95_ms:g} ms; {share} should be quicker. Users feel search as sluggish.",
    )


def _errors(slo: Slo) -> Iterator[Rule]:
    budget = 1 - slo.promises.availability
    promise = f"{slo.promises.availability:.1%}"
    for name, burns, severity, window, words in (
        ("QdrantErrorBudgetBurn", PAGE, "page", "5m", "fast enough to spend the month's budget within days"),
        ("QdrantErrorBudgetBurnSlow", TICKET, "ticket", "2h", "and will miss the month's promise if it goes on"),
    ):
        yield _alert(
            name,
            f"{_any('job_api:qdrant_errors:ratio_rate', budget, burns)}\n"
            f"{_busy(f'job_api:qdrant_requests:rate{window}')}",
            severity,
            "Qdrant answers requests over {{ $labels.api }} with errors, " + words + ".",
            "{{ $value | humanizePercentage }} of the requests fail on the server's side; the promise is "
            f"{promise} without. Users see failed searches and writes.",
            hold="2m" if severity == "page" else "15m",
        )


def _recall(slo: Slo) -> Rule:
    floors = {"all": slo.recall.overall, "large_tenant": slo.recall.large_tenant}
    expression = "\nor\n".join(
        f'plinth_probe_recall_ratio{{band="{band}"}} < {floor:g}' for band, floor in floors.items()
    )
    return _alert(
        "QdrantRecallLow",
        expression,
        "ticket",
        "Searches of {{ $labels.collection }} miss nearest neighbours.",
        "Of the ten nearest neighbours {{ $value | humanizePercentage }} are found on the probe set (band "
        f"{{{{ $labels.band }}}}); the floors are {slo.recall.overall:.0%} over all and {slo.recall.large_tenant:.0%} "
        "within a large tenant. Users get quick and wrong results: latency does not show it.",
        hold="30m",
    )


def _ages(slo: Slo) -> Iterator[Rule]:
    backup, drill = f"{slo.promises.backup_age_h:g}h", f"{slo.promises.drill_age_days:g}d"
    for kind, seconds, age, words in (
        ("Backup", slo.promises.backup_age_h * 3600, backup, "A loss now would cost everything written since."),
        ("Drill", slo.promises.drill_age_days * 86400, drill, "Nobody knows whether the backups can be restored."),
    ):
        metric = f"plinth_{kind.lower()}_last_success_timestamp_seconds"
        yield _alert(
            f"{kind}TooOld",
            # A timestamp of a clock that was ahead would look recent for years.
            f"time() - ({metric} > 0) > {seconds:g}\nor\ntime() - {metric} < -{SKEW_S:g}",
            "ticket",
            f"The last good {'backup' if kind == 'Backup' else 'restore drill'} is older than {age}.",
            f"It was {{{{ $value | humanizeDuration }}}} ago. {words}",
            hold="10m",
        )
        yield _alert(
            f"{kind}NeverRan",
            f"{metric} == 0",
            "ticket",
            f"No {'backup' if kind == 'Backup' else 'restore drill'} has ever succeeded here.",
            f"None in the {age} since this environment is watched. {words}",
            hold=age,
        )


def _targets_ms(slo: Slo) -> list[float]:
    search = slo.operations["search"]
    return [search.p95_ms, *([search.page_ms] if search.page_ms else [])]


def _edge(target_ms: float) -> float:
    """Return the target in seconds. Refuses one between two histogram edges, whose share cannot be computed."""
    if target_ms / 1000 not in EDGES:
        known = ", ".join(f"{1000 * edge:g}" for edge in EDGES)
        raise ValueError(
            f"a target of {target_ms:g} ms is no edge of Qdrant's histograms ({known}); choose one of them"
        )
    return target_ms / 1000


def _any(name: str, budget: float, burns: tuple[Burn, ...]) -> str:
    return "(\n" + "\nor\n".join(_both(name, budget, burn) for burn in burns) + "\n)"


def _both(name: str, budget: float, burn: Burn) -> str:
    over = f"{burn.rate * budget:.6g}"
    return f"({name}{burn.long} > {over} and {name}{burn.short} > {over})"


def _busy(rate: str) -> str:
    """Return the condition for enough traffic: one late answer of ten is no trend.

    Without traffic the exporter's probe queries are used instead.
    """
    return f"and {rate} > {MIN_RATE:g}"


def _record(name: str, expression: str, api: Api) -> Rule:
    return {"record": name, "expr": expression, "labels": {"api": api.name}}


def _alert(name: str, expression: str, severity: str, summary: str, description: str, hold: str = "15m") -> Rule:
    return {
        "alert": name,
        "expr": expression,
        "for": hold,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description, "runbook_url": f"{RUNBOOKS}/{name}.md"},
    }
