"""A run's report: for people a table and a page, for machines JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jinja2 import Environment
from rich.table import Table

from plinth.load.slo import Profile, Slo
from plinth.load.verdict import Measured, Verdict

COLOURS = {"pass": "green", "fail": "red", "void": "yellow"}

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Load gate: {{ verdict }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c2330; }
h1 span { padding: .1em .5em; border-radius: .3em; color: #fff; }
.pass { background: #18794e; } .fail { background: #b42318; } .void { background: #b54708; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; } th, td { padding: .4rem .6rem; text-align: right; }
th:first-child, td:first-child { text-align: left; } tr { border-bottom: 1px solid #d8dde6; }
td.over { color: #b42318; font-weight: 600; } dt { font-weight: 600; } dd { margin: 0 0 .5rem; }
</style>
<h1>Load gate <span class="{{ verdict }}">{{ verdict }}</span></h1>
{% for reason in reasons %}<p>{{ reason }}.</p>{% endfor %}
<table><thead><tr><th>operation</th><th>answers</th><th>errors</th><th>rate /s</th><th>p50 ms</th><th>p95 ms</th>
<th>p99 ms</th><th>target ms (p{{ percentile }})</th><th>recall@10</th></tr></thead><tbody>
{% for name, row in operations.items() %}<tr><td>{{ name }}</td><td>{{ row.count }}</td><td>{{ row.errors }}</td>
<td>{{ "%.1f"|format(row.rps) }}</td><td>{{ "%.1f"|format(row.p50_ms) }}</td>
<td class="{{ 'over' if percentile == 95 and row.p95_ms > row.target_ms }}">{{ "%.1f"|format(row.p95_ms) }}</td>
<td class="{{ 'over' if percentile == 99 and row.p99_ms > row.target_ms }}">{{ "%.1f"|format(row.p99_ms) }}</td>
<td>{{ "%.0f"|format(row.target_ms) }}</td>
<td>{{ "%.3f"|format(row.recall_at_10) if row.recall_at_10 is defined }}</td></tr>
{% endfor %}</tbody></table>
<dl>{% for key, value in facts.items() %}<dt>{{ key }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
<p>Latency is counted from the planned moment of sending, so a stall of the server is charged in full.</p></html>
"""


@dataclass(frozen=True)
class Report:
    """A judged run. ``earlier`` are the verdicts after the rounds before the last."""

    profile: str
    judged: Profile
    slo: Slo
    measured: Measured
    verdict: Verdict
    engine: str
    url: str
    data: str
    machine: str
    at: str
    earlier: tuple[Verdict, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """`verdict`, `reasons`, `operations` by name, and what the figures rest on."""
        return {
            "verdict": self.verdict.word,
            "reasons": list(self.verdict.reasons),
            "profile": self.profile,
            "percentile": self.judged.percentile,
            "at": self.at,
            "url": self.url,
            "engine": self.engine,
            "machine": self.machine,
            "data": self.data,
            "operations": self._operations(),
            "recall": {
                "overall": self.measured.recall,
                "large_tenants": dict(self.measured.recall_by_large_tenant),
            },
            "generator": vars(self.measured.generator),
            "earlier_rounds": [{"verdict": verdict.word, "reasons": list(verdict.reasons)} for verdict in self.earlier],
        }

    def table(self) -> Table:
        """The operations against their targets."""
        table = Table(title=f"Load gate '{self.profile}' on {self.engine}", title_justify="left")
        for column in ("operation", "answers", "errors", "rate/s", "p50 ms", "p95 ms", "p99 ms", "target", "recall@10"):
            table.add_column(column, justify="left" if column == "operation" else "right")
        for name, row in self._operations().items():
            judged = row["p95_ms"] if self.judged.percentile == 95 else row["p99_ms"]
            colour = "red" if judged > row["target_ms"] or row["errors"] else "green"
            table.add_row(
                name,
                str(row["count"]),
                str(row["errors"]),
                f"{row['rps']:.1f}",
                f"{row['p50_ms']:.1f}",
                f"{row['p95_ms']:.1f}",
                f"{row['p99_ms']:.1f}",
                f"[{colour}]p{self.judged.percentile} < {row['target_ms']:.0f}[/{colour}]",
                f"{row['recall_at_10']:.3f}" if "recall_at_10" in row else "",
            )
        return table

    def to_html(self) -> str:
        """A page that needs nothing beside it."""
        generator = self.measured.generator
        facts = {
            "Server": f"{self.engine} at {self.url}",
            "Data": self.data,
            "Machine": self.machine,
            "Generator": f"{generator.achieved} of {generator.planned} sent, {generator.lag_p95_ms:.1f} ms late at "
            f"p95, {generator.cpu_share:.0%} of a core",
            "At": self.at,
        }
        if self.earlier:
            facts["Earlier rounds"] = "; ".join(f"{v.word}: {', '.join(v.reasons)}" for v in self.earlier)
        environment = Environment(autoescape=True)
        return environment.from_string(_PAGE).render(
            verdict=self.verdict.word,
            reasons=self.verdict.reasons,
            percentile=self.judged.percentile,
            operations=self._operations(),
            facts=facts,
        )

    def _operations(self) -> dict[str, dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}
        for name in self.slo.operations:
            found = self.measured.operations.get(name)
            if found is None:
                continue
            rows[name] = {
                "count": found.count,
                "errors": found.errors,
                "rps": found.rps,
                "p50_ms": found.p50_ms,
                "p95_ms": found.p95_ms,
                "p99_ms": found.p99_ms,
                "service_p95_ms": found.service_p95_ms,
                "target_ms": self.slo.operations[name].at(self.judged.percentile),
            }
        if "search" in rows:
            rows["search"]["recall_at_10"] = self.measured.recall
        return rows
