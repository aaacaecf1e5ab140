"""The few kinds of panels of Plinth's dashboards, and the frame that all of them share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from grafana_foundation_sdk.builders import common as styles
from grafana_foundation_sdk.builders import dashboard, logs, loki, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

# The dashboard schema that Grafana loads from files without a feature flag; the SDK has begun to prefer its successor.
# Data sources are referenced by their provisioned uid; a generated id would tie the files to one Grafana.
SOURCE = common.DataSourceRef(type_val="prometheus", uid="plinth-prometheus")
LOGS = common.DataSourceRef(type_val="loki", uid="plinth-loki")
TAG = "plinth"


@dataclass(frozen=True)
class Query:
    """An expression, and the template of its legend."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Limits:
    """The thresholds at which a value turns orange and red; ``falling`` where less is worse."""

    orange: float | None
    red: float | None
    falling: bool = False


@dataclass(frozen=True)
class Panel:
    """A panel: a graph over time, one ``number``, or ``lines`` of logs.

    ``unit`` is Grafana's name, such as s or bytes. Expressions are Prometheus', or Loki's where the ``source`` is LOGS.
    """

    title: str
    unit: str
    queries: tuple[Query, ...]
    about: str = ""
    limits: Limits | None = None
    number: bool = False
    width: int = 8
    stacked: bool = False
    zero: str = ""
    source: common.DataSourceRef = SOURCE
    lines: bool = False


@dataclass(frozen=True)
class Variable:
    """A selector at the top: the values of a label in the result of an expression.

    It starts with a single value selected.
    """

    name: str
    label: str
    query: str
    source: common.DataSourceRef = SOURCE


@dataclass(frozen=True)
class Board:
    """A dashboard; its uid must not change, since links point to it."""

    uid: str
    title: str
    about: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[Variable, ...] = ()

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Return all panels, in order."""
        return tuple(panel for _, panels in self.rows for panel in panels)


def number(title: str, unit: str, expr: str, about: str = "", limits: Limits | None = None, zero: str = "") -> Panel:
    """Return a panel with one large value."""
    return Panel(title, unit, (Query(expr),), about, limits, number=True, width=4, zero=zero)


def graph(
    title: str,
    unit: str,
    *queries: tuple[str, str],
    about: str = "",
    limits: Limits | None = None,
    width: int = 8,
    stacked: bool = False,
    source: common.DataSourceRef = SOURCE,
) -> Panel:
    """Return a panel with lines over time; a query is (expression, legend)."""
    asked = tuple(Query(*query) for query in queries)
    return Panel(title, unit, asked, about, limits, width=width, stacked=stacked, source=source)


def lines(title: str, expr: str, about: str = "") -> Panel:
    """Return a panel with log lines, the newest first."""
    return Panel(title, "short", (Query(expr),), about, width=24, source=LOGS, lines=True)


def to_json(board: Board) -> str:
    """Return the dashboard in Grafana's schema, with sorted keys, so that a change is a small diff."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.about)
        .tags([TAG])
        .time("now-3h", "now")
        .refresh("30s")
        .timezone("utc")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Plinth")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    for name, expr, colour in (
        ("Deploys", "changes(plinth_last_deploy_timestamp_seconds[1m]) > 0", "blue"),
        ("Load runs", "changes(plinth_load_last_timestamp_seconds[1m]) > 0", "orange"),
    ):
        built = built.annotation(
            dashboard.AnnotationQuery()
            .name(name)
            .datasource(SOURCE)
            .enable(True)
            .icon_color(colour)
            .expr(expr)
            .step("60s")
            .title_format(name)
        )
    for variable in board.variables:
        built = built.with_variable(_variable(variable))
    # Without ids each Grafana numbers them as it likes, and a link to a panel points to another one elsewhere.
    numbers = count(1)
    for title, panels in board.rows:
        built = built.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels:
            built = built.with_panel(_panel(panel).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"


def expressions(text: str, source: str = "prometheus") -> list[tuple[str, str]]:
    """Return (title, expression) of the panels and annotations of a dashboard's JSON with a kind of data source."""
    document = json.loads(text)
    found = [(panel["title"], target) for panel in document["panels"] for target in panel.get("targets", ())]
    found += [(note["name"], note) for note in document["annotations"]["list"] if "expr" in note]
    return [(title, asked["expr"]) for title, asked in found if asked["datasource"]["type"] == source]


def _variable(variable: Variable) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(variable.source)
        .query(variable.query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(text="All", value="$__all"))
    )


def _panel(panel: Panel) -> stat.Panel | logs.Panel | timeseries.Panel:
    if panel.number:
        return _number(panel)
    return _lines(panel) if panel.lines else _graph(panel)


def _graph(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.about)
        .unit(panel.unit)
        .datasource(panel.source)
        .span(panel.width)
        .height(7)
        .min(0)
        .line_width(1)
        .fill_opacity(15 if panel.stacked else 5)
        .show_points(common.VisibilityMode.NEVER)
    )
    if panel.stacked:
        built = built.stacking(styles.StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.limits:
        style = styles.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.LINE)
        built = built.thresholds(_thresholds(panel.limits)).thresholds_style(style)
    for target in _asked_of_loki(panel.queries) if panel.source is LOGS else _targets(panel.queries):
        built = built.with_target(target)
    return built


def _lines(panel: Panel) -> logs.Panel:
    built = (
        logs.Panel()
        .title(panel.title)
        .description(panel.about)
        .unit(panel.unit)
        .datasource(panel.source)
        .span(panel.width)
        .height(12)
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(common.LogsSortOrder.DESCENDING)
    )
    for target in _asked_of_loki(panel.queries):
        built = built.with_target(target)
    return built


def _asked_of_loki(queries: Sequence[Query]) -> list[loki.Dataquery]:
    return [
        loki.Dataquery()
        .datasource(LOGS)
        .expr(query.expr)
        .legend_format(query.legend)
        .query_type("range")
        .ref_id(chr(65 + place))
        for place, query in enumerate(queries)
    ]


def _number(panel: Panel) -> stat.Panel:
    built = (
        stat.Panel()
        .title(panel.title)
        .description(panel.about)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(panel.width)
        .height(4)
        .graph_mode(common.BigValueGraphMode.AREA)
        .thresholds(_thresholds(panel.limits or Limits(None, None)))
    )
    if panel.zero:
        built = built.no_value(panel.zero)
    for target in _targets(panel.queries):
        built = built.with_target(target)
    return built


def _targets(queries: Sequence[Query]) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery().datasource(SOURCE).expr(query.expr).legend_format(query.legend).ref_id(chr(65 + place))
        for place, query in enumerate(queries)
    ]


def _thresholds(limits: Limits) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(color="red" if limits.falling else "green")]
    if limits.falling:
        steps += [models.Threshold(value=v, color=c) for v, c in ((limits.red, "orange"), (limits.orange, "green"))]
    else:
        steps += [models.Threshold(value=v, color=c) for v, c in ((limits.orange, "orange"), (limits.red, "red"))]
    kept = [step for place, step in enumerate(steps) if place == 0 or step.value is not None]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(kept)
