"""Monitoring on a live stack under a little load: no empty panel, no name that is made up, no false alarm.

What cannot have a value here is listed by name, with the reason.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from plinth.monitoring.dashboards.builder import expressions
from tests.conftest import ROOT, free_port, real_qdrant
from tests.engine.watched import (
    ABSENT,
    ABSENT_EMBEDDED,
    AGENTS,
    CONTAINERS,
    GATE,
    NOT_EMBEDDED,
    Live,
    is_absent,
    watched,
)
from tests.project import needs_prometheus, needs_pulumi
from tests.prometheus import get
from tests.promql import names, selectors
from tests.runbooks import shown, typed

pytestmark = [
    pytest.mark.engine,
    needs_pulumi,
    needs_prometheus,
]

BOARDS = sorted((ROOT / "monitoring" / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((ROOT / "monitoring" / "prometheus" / "rules").glob("*.yml"))
# Selectors whose series begin with the first such event, which a healthy stack has not had.
NO_EVENT = {
    'rest_responses_total{status=~"5..|408"}': "no request has failed",
    'grpc_responses_total{status=~"2|4|9|13|14|15"}': "no request has failed",
    'plinth_gateway_operation_duration_seconds_count{protocol!="job",'
    'outcome=~"UNAVAILABLE|INTERNAL|DEADLINE_EXCEEDED"}': "no request has failed",
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            "server",
            marks=[
                pytest.mark.qdrant,
                pytest.mark.skipif(
                    real_qdrant() is None, reason="no qdrant binary: set PLINTH_QDRANT or put it on PATH"
                ),
            ],
        ),
        "embedded",
    ],
)
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    with watched(request.param) as found:
        yield found


@pytest.mark.requirement("S1-05")
@pytest.mark.requirement("S0-05")
@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_no_panel_is_empty(live: Live, path: Path) -> None:
    empty = []
    for title, expression in expressions(path.read_text()):
        filled = expression.replace("$node", ".*").replace("$collection", ".*").removesuffix(" > 0")
        if not live.query(filled) and not is_absent(live, filled):
            empty.append(f"{path.stem} / {title}: {filled}")
    assert not empty, "\n".join(empty)


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.requirement("S1-09")
def test_every_series_that_a_rule_reads_is_there(live: Live) -> None:
    missing = []
    for rule in rules():
        name = rule.get("alert") or rule["record"]
        for selector in selectors(rule["expr"]):
            known = selector.partition("{")[0] in live.absent or selector in NO_EVENT
            by_api = selector.startswith("job_api:")
            if not known and not by_api and not live.query(selector):
                missing.append(f"{name}: {selector}")
    assert not missing, "\n".join(missing)


def test_what_is_recorded_has_a_value_for_each_api_that_is_spoken(live: Live) -> None:
    apis = {"rest"} if "grpc_responses_total" in live.absent else {"rest", "grpc"}
    for name in sorted({rule["record"] for rule in rules() if "record" in rule}):
        assert {sample["metric"]["api"] for sample in live.query(name)} == apis, name


def test_no_rule_fails_on_live_data_and_nothing_alarms_on_a_healthy_stack(live: Live) -> None:
    groups = get(live.prometheus, "rules")["groups"]
    assert sum(len(group["rules"]) for group in groups) == len(rules())
    assert not [rule for group in groups for rule in group["rules"] if rule["health"] != "ok"]
    # The machine may be busy and so slow, or full, and that is no fault of the stack's.
    assert not live.query('ALERTS{alertname!~"Watchdog|Host.*|.*SearchSlow|QdrantSearchBudgetBurn"}')
    assert live.query('ALERTS{alertname="Watchdog",alertstate="firing"}')


def test_every_metric_that_is_used_is_on_a_page_that_was_scraped(live: Live, tmp_path: Path) -> None:
    used = {name for path in BOARDS for _, expression in expressions(path.read_text()) for name in names(expression)}
    used |= {name for rule in rules() for name in names(rule["expr"])}
    there = set(get(live.prometheus, "label/__name__/values"))
    missing = used - there - (ABSENT_EMBEDDED.keys() & live.absent.keys()) - {*AGENTS, *CONTAINERS, GATE}
    if real_qdrant():
        missing -= cluster_page(tmp_path)
    else:
        missing -= ABSENT.keys()
    assert not missing


def cluster_page(directory: Path) -> set[str]:
    """The names of a real server's page in cluster mode."""
    port, p2p = free_port(), free_port()
    config = {
        "telemetry_disabled": True,
        "service": {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port()},
        "cluster": {"enabled": True, "p2p": {"port": p2p}},
        "storage": {"storage_path": str(directory / "s"), "snapshots_path": str(directory / "n")},
    }
    (directory / "c.yaml").write_text(yaml.safe_dump(config))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(real_qdrant()), "--config-path", str(directory / "c.yaml"), "--uri", f"http://127.0.0.1:{p2p}"],
            cwd=directory,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
                found = {line.partition(" ")[0].partition("{")[0] for line in lines if line and line[0] != "#"}
                if "cluster_working_state" in found:
                    return found
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline, (directory / "log").read_text()[-2000:]
            time.sleep(0.2)
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_every_question_of_a_runbook_can_be_asked(live: Live) -> None:
    pages = (ROOT / "monitoring" / "runbooks").glob("*.md")
    asked = {text for page in pages for text in re.findall(r"`prom '(.+?)'`", page.read_text())}
    assert len(asked) > 50
    there = set(get(live.prometheus, "label/__name__/values"))
    for text in asked:
        expression = text.replace("'$C'", "trades_v1")
        live.query(expression)
        assert names(expression) <= there | live.absent.keys(), text


def test_the_runbooks_words_work_in_a_shell(live: Live) -> None:
    said = typed(
        live.project.root,
        "q /readyz",
        'prom "up == 1"',
        "logs qdrant",
        'sql "SELECT 6 * 7"',
        "redis SET from-a-runbook 1",
        "url prometheus",
        "login prometheus",
        "ask prometheus /-/ready",
        "am silence add alertname=FromARunbook --duration=1m --comment=why",
        "am silence query",
        "sizes",
        "sizes --inodes",
        """q PATCH /collections/$C '{"optimizers_config": {}}'""",
        "restart node-exporter",
    )
    assert "all shards are ready" in said
    assert '"job": "qdrant"' in said
    assert "\n42\n" in said
    assert "True\n" in said
    assert f"{live.prometheus['url']}\n" in said
    assert "Prometheus Server is Ready." in said
    assert f"plinth {live.prometheus['password']}\n" in said
    assert re.search(r"Matchers .*\n.*FromARunbook", said)
    assert "data/postgres" in said
    assert '"result":true' in said.replace(" ", "")
    assert "node-exporter: started" in said


def test_what_a_runbook_asks_can_be_typed_as_it_stands(live: Live) -> None:
    lines = shown("q /|logs |sql |redis |url ")
    assert len(lines) > 18
    elsewhere = {"logs fluent-bit", "logs loki"}
    # Ids and names come from what was asked before; a cluster's nodes are not here.
    lines = {line for line in lines - elsewhere if not re.search(r"\b(PID|PATH|SERVICE)\b", line)}
    if NOT_EMBEDDED in live.absent.values():
        lines = {line for line in lines if "/cluster" not in line and "/memory" not in line}
    typed(live.project.root, *sorted(lines))


@pytest.mark.requirement("S0-05")
def test_status_and_outputs_show_plinths_own_exporter(live: Live) -> None:
    # A patient question: this is about what is shown, on a machine that may be busy.
    status = json.loads(live.project.plinth("status", "t", "--json", PROBE_TIMEOUT_MS="3000"))
    assert status["deps"]["plinth_exporter"]["ok"] is True
    assert live.outputs["exporters"]["plinth"]["url"].endswith("/metrics")
    services = {sample["metric"]["service"] for sample in live.query("plinth_service_resident_bytes")}
    assert {"qdrant", "postgres", "redis", "prometheus", "alertmanager", "plinth-exporter"} <= services
    assert json.dumps(status).count("http://") >= 3


def test_a_runbooks_words_name_what_fires_and_which_page_cannot_be_read(live: Live) -> None:
    exporter = next(found for name, found in live.project.supervised().items() if name.startswith("prometheus-node"))
    exporter.suspend()
    try:
        deadline = time.monotonic() + 60
        while not live.query('ALERTS{alertname="TargetMissing"}'):
            assert time.monotonic() < deadline, "no alert came"
            time.sleep(1)
        said = typed(live.project.root, "alerts", "targets")
    finally:
        exporter.resume()
    assert "ticket TargetMissing (pending since " in said
    assert "    monitoring/runbooks/TargetMissing.md\n" in said
    assert re.search(r"^node-exporter\thttp\S+/metrics\t.*deadline exceeded", said, re.MULTILINE)
