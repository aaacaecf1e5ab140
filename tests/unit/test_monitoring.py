"""Rules, alerts and routes: Prometheus' own tools take them, and each alert fires and stays quiet."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from plinth.environment import parse
from plinth.services.monitoring import alertmanager
from plinth.services.render import files
from tests.conftest import ROOT
from tests.unit.test_services import Elsewhere

RULES = ROOT / "monitoring" / "prometheus" / "rules"
TESTS = ROOT / "monitoring" / "prometheus" / "tests"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: apt-get install prometheus")
needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None, reason="no amtool: apt-get install prometheus-alertmanager"
)


def alerts() -> dict[str, dict[str, object]]:
    groups = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


@needs_promtool
@pytest.mark.requirement("S1-09")
def test_promtool_takes_the_rules_and_their_tests_pass() -> None:
    for arguments in (["check", "rules", *map(str, RULES.glob("*.yml"))], ["test", "rules", str(TESTS / "alerts.yml")]):
        done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_to_fire_and_to_stay_quiet() -> None:
    cases = [
        case for test in yaml.safe_load((TESTS / "alerts.yml").read_text())["tests"] for case in test["alert_rule_test"]
    ]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    quiet = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert fires == set(alerts())
    # The watchdog is never quiet: that is its use.
    assert quiet == set(alerts()) - {"Watchdog"}


def test_every_alert_says_how_bad_what_and_why() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket", "info"), name  # type: ignore[index]
        assert set(rule["annotations"]) >= {"summary", "description"}, name  # type: ignore[call-overload]


@pytest.mark.requirement("S2-02")
def test_the_search_targets_are_those_of_the_load_gate_and_edges_of_qdrants_histogram() -> None:
    search = yaml.safe_load((ROOT / "load" / "slo.yaml").read_text())["operations"]["search"]
    text = (RULES / "recording.yml").read_text()
    assert set(re.findall(r'le="([\d.]+)"', text)) == {f"{search[key] / 1000:g}" for key in ("p95_ms", "page_ms")}


@needs_amtool
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("severity=page", "webhook"),
        ("severity=ticket", "webhook"),
        ("severity=info", "nobody"),
        ("alertname=Watchdog", "webhook"),
    ],
)
def test_alerts_are_routed_by_severity(tmp_path: Path, labels: str, receiver: str) -> None:
    settings = parse(
        {"target": "local", "monitoring": {"alertmanager": {"webhook_url": "http://127.0.0.1:9/hook"}}}, source="x"
    )
    known = {"alertmanager_webhook_url": "http://127.0.0.1:9/hook"}
    path = tmp_path / "alertmanager.yml"
    path.write_text(files(alertmanager(settings), Elsewhere(), known, ROOT)["alertmanager.yml"])
    done = subprocess.run(
        ["amtool", "config", "routes", "test", f"--config.file={path}", labels],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == receiver, done.stderr
