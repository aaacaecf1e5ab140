"""The report as a self-contained HTML page."""

from __future__ import annotations

from math import isinf
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from plinth.load.report import Report, span

TEMPLATE = Path(__file__).with_name("report.html.j2")


def page(report: Report) -> str:
    """Return the HTML page of a report."""
    # matplotlib takes a third of the import time of every command.
    from plinth.load.plots import plots

    environment = Environment(autoescape=True, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text()).render(
        verdict=report.verdict.word,
        reasons=report.verdict.reasons,
        lead=f"Profile {report.profile} at {report.decisive.rate_per_s:g} requests a second over "
        f"{'gRPC' if report.protocol == 'grpc' else 'REST'}, {report.at}",
        percentile=report.judged.percentile,
        confidence=report.judged.confidence,
        rows=list(_rows(report)),
        plots=[{"title": plot.title, "words": plot.words, "svg": Markup(plot.svg)} for plot in plots(report)],  # noqa: S704 - ours
        facts=_facts(report),
    )


def _rows(report: Report) -> list[dict[str, Any]]:
    percentile, rows = report.judged.percentile, []
    for name, target in report.slo.operations.items():
        found = report.measured.operations.get(name)
        if found is None:
            continue
        estimate, limit = found.at(percentile), target.at(percentile)
        rows.append(
            {
                "name": name,
                "count": found.count,
                "errors": found.errors,
                "rps": found.rps,
                "p50": found.p50_ms,
                "p95": found.p95.value,
                "p99": found.p99.value,
                "span": span(estimate),
                "state": "over" if estimate.low > limit else "met" if estimate.high <= limit else "open",
                "target": limit,
                "what": target.what,
            }
        )
    return rows


def _facts(report: Report) -> dict[str, str]:
    generator, server = report.measured.generator, report.server
    facts = {
        "Server": f"{report.engine} at {report.url}",
        "Data": report.data,
        "Generator's machine": report.machine,
        "Generator": f"{generator.achieved} of {generator.planned} sent, {generator.lag_p95_ms:.1f} ms late at p95; "
        f"{generator.overhead_ms:.2f} ms of a core a request, so it could send {generator.headroom:.0f} times as much",
        "Little's law": f"{generator.in_flight:.2f} requests in flight, "
        f"{report.measured.in_flight_expected:.2f} by rate and time",
    }
    if server.search_p95_ms:
        low, high = server.search_p95_ms
        upper = "more" if isinf(high) else f"{high:g} ms"
        facts["Server's own p95"] = f"{low:g} to {upper} over {server.searches} searches"
    if server.before:
        facts["Index"] = "; ".join(
            f"{when} {state['points_count']:.0f} points, {state['indexed_vectors_count']:.0f} indexed, "
            f"{state['segments_count']:.0f} segments"
            for when, state in (("before", server.before), ("after", server.after))
            if state
        )
    if report.highest_rate_per_s:
        facts["Highest rate that passed"] = f"{report.highest_rate_per_s:g} requests a second"
    earlier = report.decisive.verdicts[:-1]
    if earlier:
        facts["Earlier rounds"] = "; ".join(f"{verdict.word}: {', '.join(verdict.reasons)}" for verdict in earlier)
    return facts
