"""Dashboards: complete in Grafana's schema, bound to no generated id, and agreeing with load/slo.yaml."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from plinth.monitoring.dashboards.builder import expressions
from plinth.services.monitoring import DASHBOARDS, OVERVIEW, grafana
from plinth.services.mutual_tls import Identity
from plinth.services.project_files import read_project_files
from plinth.services.render import files
from plinth.services.secrets import secrets
from plinth.settings.loader import parse
from tests.conftest import ROOT
from tests.grafana_schema import complaints
from tests.promql import selectors
from tests.unit.test_services import Elsewhere

FILES = sorted((ROOT / DASHBOARDS).glob("*.json"))
SUBJECTS = [
    *("overview", "qdrant", "collections", "cluster", "postgres", "redis"),
    *("gateway", "host", "backups", "load", "logs"),
]


def boards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in FILES}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@pytest.mark.requirement("S1-05")
def test_there_is_a_dashboard_for_each_subject_under_a_uid_that_stays() -> None:
    assert {name: board["uid"] for name, board in boards().items()} == {s: f"plinth-{s}" for s in SUBJECTS}
    assert OVERVIEW == "plinth-overview"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_holds_to_grafanas_schema(path: Path) -> None:
    assert complaints(json.loads(path.read_text())) == []


@pytest.mark.parametrize(
    ("at", "value", "complaint"),
    [
        (("panels", 1, "made_up"), 1, "/panels/1/made_up is unknown"),
        (("panels", 1, "title"), 3, "/panels/1/title is 3"),
        (("panels", 1, "gridPos", "w"), "four", "w is 'four'"),
        (("panels", 2, "options", "graphMode"), "x", "graph_mode is 'x', not one of"),
        (("panels", 1, "targets"), {}, "/panels/1/targets is {}"),
        (("graphTooltip",), 9, "/graph_tooltip is 9, not one of"),
        (("refresh",), 5, "/refresh is 5"),
    ],
)
def test_what_grafanas_schema_does_not_know_is_found(at: tuple[Any, ...], value: Any, complaint: str) -> None:
    document = json.loads((ROOT / DASHBOARDS / "overview.json").read_text())
    place = document
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    (found,) = complaints(document)
    assert complaint in found


SECRETS = {
    "grafana_admin_password": "p",
    "grafana_secret_key": "k",
    "prometheus_password": "w",
    **dict.fromkeys(Identity("grafana").files, "c"),
}


def sources() -> list[dict[str, str]]:
    """The data sources that are provisioned, as panels refer to them."""
    settings = parse({"target": "local"}, source="x")
    contents = files(
        grafana(settings, read_project_files(settings, ROOT).dashboards, logs=True),
        Elsewhere(),
        SECRETS,
        ROOT,
    )
    found = yaml.safe_load(contents["provisioning/datasources/plinth.yaml"])["datasources"]
    return [{"type": source["type"], "uid": source["uid"]} for source in found]


def test_every_panel_has_a_title_and_a_number_of_its_own_a_unit_an_expression_and_a_provisioned_source() -> None:
    assert len(sources()) == 2
    for name, board in boards().items():
        titles = [panel["title"] for panel in panels(board)]
        assert len(titles) == len(set(titles)), name
        numbers = [panel["id"] for panel in board["panels"]]
        assert len(numbers) == len(set(numbers)), name
        assert min(numbers) > 0, name
        for panel in panels(board):
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["targets"], panel["title"]
            for owner in (panel, *panel["targets"]):
                assert owner["datasource"] in sources(), panel["title"]
                assert owner["datasource"] == panel["datasource"], panel["title"]
        for variable in board["templating"].get("list", []):
            assert variable["datasource"] in sources()


def test_a_variable_that_is_used_is_there_and_one_that_is_there_is_used() -> None:
    for name, board in boards().items():
        text = json.dumps(board["panels"])
        there = {variable["name"] for variable in board["templating"].get("list", [])}
        assert {word for word in ("node", "collection", "service", "level") if f"${word}" in text} == there, name


def test_dashboards_lead_to_each_other_and_mark_deploys_and_load_runs() -> None:
    for board in boards().values():
        assert board["links"][0]["tags"] == ["plinth"]
        assert "plinth" in board["tags"]
        assert {"Deploys", "Load runs"} <= {note["name"] for note in board["annotations"]["list"]}


@pytest.mark.requirement("S2-02")
def test_a_panel_turns_red_where_an_alert_pages() -> None:
    search = yaml.safe_load((ROOT / "load" / "slo.yaml").read_text())["operations"]["search"]
    (panel,) = [panel for panel in panels(boards()["overview"]) if panel["title"] == "Search latency"]
    steps = {step["color"]: step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]}
    assert steps == {"orange": search["p95_ms"] / 1000, "red": search["page_ms"] / 1000}


@pytest.mark.requirement("S1-05")
def test_grafana_is_given_every_dashboard_and_one_to_open_with() -> None:
    settings = parse({"target": "local"}, source="x")
    contents = files(
        grafana(settings, read_project_files(settings, ROOT).dashboards, logs=True),
        Elsewhere(),
        SECRETS,
        ROOT,
    )
    provider = yaml.safe_load(contents["provisioning/dashboards/plinth.yaml"])["providers"][0]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    assert {name for name in contents if name.startswith("dashboards/")} == {f"dashboards/{p.name}" for p in FILES}
    assert "default_home_dashboard_path = /etc/grafana/dashboards/overview.json" in contents["grafana.ini"]


@pytest.mark.requirement("S1-14")
def test_grafana_encrypts_with_a_key_of_its_own() -> None:
    settings = parse({"target": "local"}, source="x")
    assert secrets(settings)["grafana_secret_key"] is None, "it is generated"
    contents = files(
        grafana(settings, read_project_files(settings, ROOT).dashboards, logs=True),
        Elsewhere(),
        SECRETS,
        ROOT,
    )
    (told,) = re.findall(r'^secret_key = """\$__file\{(.+)\}"""$', contents["grafana.ini"], re.MULTILINE)
    assert contents[Path(told).name] == "k"


def test_expressions_are_found_and_taken_apart() -> None:
    found = dict(expressions((ROOT / DASHBOARDS / "overview.json").read_text()))
    assert found["Services not seen"] == "count(up == 0) or vector(0)"
    assert selectors('sum by (a) (rate(x_total{b="{c}"}[5m])) / on () group_left () max(y) > 5e3 and z offset 1d') == {
        'x_total{b="{c}"}',
        "y",
        "z",
    }
