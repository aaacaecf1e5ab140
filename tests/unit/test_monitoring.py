"""Rules and alerts: Prometheus' own tools take them, each alert fires and stays quiet, and has a page to follow."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from plinth.embedded.metrics import BUCKETS
from plinth.load.slo import load_slo
from plinth.monitoring.generate import generated
from plinth.monitoring.slo_rules import rule_groups
from plinth.qdrant.metric_names import EDGES
from plinth.services.render import files
from plinth.settings.loader import load_settings, parse
from tests.conftest import ROOT
from tests.services import services_of
from tests.unit.test_services import Elsewhere, secret_names

RULES = ROOT / "monitoring" / "prometheus" / "rules"
TESTS = ROOT / "monitoring" / "prometheus" / "tests"
RUNBOOKS = ROOT / "monitoring" / "runbooks"
HEADINGS = ["What it means", "What users feel", "First five minutes", "How to fix", "How to prove it is over"]
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: apt-get install prometheus")


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES.glob("*.yml") for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def cases() -> list[dict[str, Any]]:
    tests = [test for path in TESTS.glob("*.yml") for test in yaml.safe_load(path.read_text())["tests"]]
    return [case for test in tests for case in test["alert_rule_test"]]


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.slow
@pytest.mark.requirement("S1-09")
def test_promtool_takes_the_rules() -> None:
    promtool("check", "rules", *map(str, RULES.glob("*.yml")))


class Here(Elsewhere):
    """A place on this machine, so that promtool finds the files that a configuration names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def address(self, service: str, port: str) -> str:
        return f"{service}.test:80"

    def file(self, service: str, name: str) -> str:
        return str(self.directory / name)


@needs_promtool
@pytest.mark.slow
@pytest.mark.requirement("S1-09")
@pytest.mark.parametrize("env", ["local", "dev", "cluster", "staging", "prod"])
def test_promtool_takes_the_configuration_of_every_environment(env: str, tmp_path: Path) -> None:
    settings = load_settings(ROOT, env)
    known = dict.fromkeys(secret_names(settings), "k")
    (service,) = [found for found in services_of(settings) if found.name == "prometheus"]
    for name, content in files(service, Here(tmp_path), known, ROOT).items():
        (tmp_path / name).write_text(content)
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


@needs_promtool
@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(TESTS.glob("*.yml")), ids=lambda path: path.stem)
@pytest.mark.requirement("S1-09")
def test_alerts_fire_with_their_words_and_stay_quiet(path: Path) -> None:
    promtool("test", "rules", str(path))


def test_every_alert_is_tested_to_fire_and_to_stay_quiet() -> None:
    assert {case["alertname"] for case in cases() if case["exp_alerts"]} == set(alerts())
    # The watchdog is never quiet: that is its use.
    assert {case["alertname"] for case in cases() if not case["exp_alerts"]} == set(alerts()) - {"Watchdog"}


def test_every_alert_has_one_definition_and_says_how_bad_what_and_why() -> None:
    assert len(alerts()) == sum("alert" in rule for rule in rules())
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket", "info"), name
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name


def test_every_alert_leads_to_a_runbook_with_the_five_headings() -> None:
    pages = {name: ROOT / rule["annotations"]["runbook_url"] for name, rule in alerts().items()}
    for name, page in pages.items():
        assert page == RUNBOOKS / f"{name}.md"
        # Somebody who was woken comes here by a link, and has not read the README.
        assert "`. monitoring/runbooks/shell.sh ENV`" in page.read_text().partition("\n## ")[0]
        sections = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]
        assert [section.partition("\n")[0] for section in sections] == HEADINGS, name
        assert all(section.partition("\n")[2].strip() for section in sections), name
    assert set(RUNBOOKS.glob("*.md")) - set(pages.values()) == {RUNBOOKS / "README.md"}


def test_where_runbooks_are_published_alerts_lead_there() -> None:
    settings = parse({"target": "local", "monitoring": {"runbooks_url": "https://example.org/runbooks/"}}, source="x")
    (service,) = [found for found in services_of(settings) if found.name == "prometheus"]
    contents = files(service, Elsewhere(), dict.fromkeys(secret_names(settings), "k"), ROOT)
    urls = re.findall(r"runbook_url: (\S+)", "".join(contents.values()))
    assert set(urls) == {f"https://example.org/runbooks/{name}.md" for name in alerts()}


def test_runbooks_name_settings_and_pages_that_exist() -> None:
    schema = (ROOT / "stacks" / "settings.schema.json").read_text()
    for page in RUNBOOKS.glob("*.md"):
        text = page.read_text()
        for link in re.findall(r"\]\(([\w.]+)\)", text):
            assert (RUNBOOKS / link).is_file(), f"{page}: {link}"
        for key in re.findall(r"plinth:([a-z_.]+[a-z_])", text):
            assert f'"{key.rpartition(".")[2]}"' in schema, f"{page}: {key}"


@pytest.mark.requirement("S2-02")
def test_generated_files_are_those_that_slo_yaml_gives() -> None:
    for name, content in generated(ROOT).items():
        assert (ROOT / name).read_text() == content, f"{name} is stale; run `make monitoring`"


@pytest.mark.requirement("S2-02")
def test_slo_rules_hold_the_targets_promises_and_floors_of_the_load_gate() -> None:
    slo = yaml.safe_load((ROOT / "load" / "slo.yaml").read_text())
    search, promises = slo["operations"]["search"], slo["promises"]
    text = (RULES / "slo.yml").read_text()
    assert set(re.findall(r'le="([\d.]+)"', text)) == {f"{search[key] / 1000:g}" for key in ("p95_ms", "page_ms")}
    found = {name: set(re.findall(r"[<>] ([\d.]+)", rule["expr"])) for name, rule in alerts().items()}
    late, failed = 1 - promises["within_target"], 1 - promises["availability"]
    assert f"{late:g}" in found["QdrantSearchSlow"]
    assert {f"{3 * late:g}", f"{late:g}"} <= found["QdrantSearchBudgetBurn"]
    assert {f"{14.4 * failed:g}", f"{6 * failed:g}"} <= found["QdrantErrorBudgetBurn"]
    assert {f"{3 * failed:g}", f"{failed:g}"} <= found["QdrantErrorBudgetBurnSlow"]
    assert found["QdrantRecallLow"] == {f"{floor:g}" for floor in slo["recall"].values()}
    assert f"{promises['backup_age_h'] * 3600:g}" in found["BackupTooOld"]
    assert f"{promises['drill_age_days'] * 86400:g}" in found["DrillTooOld"]


def test_both_apis_are_held_to_the_same_promise() -> None:
    records = [rule for rule in rules() if "record" in rule]
    by_api = {api: {rule["record"] for rule in records if rule["labels"]["api"] == api} for api in ("rest", "grpc")}
    assert by_api["rest"] == by_api["grpc"]


def test_every_recorded_name_that_a_rule_reads_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    read = {name for rule in rules() if "alert" in rule for name in re.findall(r"job_api:[\w:]+", rule["expr"])}
    assert read <= recorded


def test_a_target_between_two_edges_of_the_histogram_is_refused(tmp_path: Path) -> None:
    assert EDGES == BUCKETS
    document = yaml.safe_load((ROOT / "load" / "slo.yaml").read_text())
    document["operations"]["search"]["page_ms"] = 200
    path = tmp_path / "slo.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ValueError, match="200 ms is no edge of Qdrant's histograms"):
        rule_groups(load_slo(path))
