"""Logs: Loki, the agent that fills it, its few labels, Qdrant's audit log; both services or neither."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lupa.luajit21 import LuaRuntime

from plinth.deployment.preflight import ports, refusals
from plinth.gateway.audit import AuditRecord
from plinth.services import logs
from plinth.services.render import files
from plinth.settings import Settings
from plinth.settings.loader import parse
from plinth.targets.local.executables import locate
from tests.conftest import ROOT
from tests.services import services_of
from tests.unit.test_services import Elsewhere, secret_names

ON = {"loki": {"enabled": True}}
LEVELS = {"debug", "info", "warn", "error", "fatal", "unknown"}


def environment(target: str = "local", **values: Any) -> Settings:
    return parse({"target": target, **values}, source="x")


class Engine(Elsewhere):
    """A place that sends what services print by itself."""

    output = None  # type: ignore[assignment]

    def read(self, service: str, name: str) -> dict[str, str]:
        return {f"{service}-{number}": f"/read/{service}-{number}/{name}" for number in range(2)}


def rendered(settings: Settings, place: Elsewhere | None = None) -> dict[str, dict[str, Any]]:
    known = dict.fromkeys(secret_names(settings), "k")
    return {
        service.name: {
            name: yaml.safe_load(text) if name.endswith(("yaml", "yml")) else text
            for name, text in files(service, place or Elsewhere(), known, ROOT).items()
        }
        for service in services_of(settings)
    }


def test_logs_are_kept_only_when_asked_for_and_by_both_services_or_neither() -> None:
    both = {"loki", "fluent-bit"}
    assert not both & set(rendered(environment()))
    wanted = environment(monitoring=ON)
    assert both <= set(rendered(wanted))
    for absent in both:
        assert not both & {service.name for service in services_of(wanted, left_out=(absent,))}


def test_a_machine_without_their_programs_runs_the_rest_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PLINTH_LOKI", "PLINTH_FLUENT_BIT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    _, left_out = locate(logs.services(environment(monitoring=ON)))
    assert set(left_out) <= {"loki", "fluent-bit"}
    assert "put one on PATH or set PLINTH_LOKI" in left_out["loki"]


def test_loki_keeps_them_as_long_as_is_set_and_reports_nothing_to_its_vendor() -> None:
    config = rendered(environment(monitoring={"loki": {"enabled": True, "retention_days": 3}}))["loki"]["loki.yaml"]
    assert config["limits_config"]["retention_period"] == "72h"
    assert config["compactor"]["retention_enabled"] is True
    assert config["analytics"]["reporting_enabled"] is False
    assert config["server"]["http_listen_address"] == "127.0.0.1"


@pytest.mark.parametrize("place", [Elsewhere(), Engine()], ids=["files", "engine"])
def test_labels_are_few_and_lines_wait_on_disk_for_loki(place: Elsewhere) -> None:
    config = rendered(environment(monitoring=ON), place)["fluent-bit"]["fluent-bit.yaml"]
    (out,) = config["pipeline"]["outputs"]
    assert out["labels"] == "stack=t"
    assert out["label_keys"] == "$service,$node,$level,$kind"
    assert out["retry_limit"] == "no_limits"
    assert {given["storage.type"] for given in config["pipeline"]["inputs"]} == {"filesystem"}


def test_lines_come_from_the_targets_files_where_it_has_some_else_from_the_engine() -> None:
    def inputs(place: Elsewhere) -> list[dict[str, Any]]:
        config = rendered(environment(monitoring=ON), place)["fluent-bit"]["fluent-bit.yaml"]
        found: list[dict[str, Any]] = config["pipeline"]["inputs"]
        return found

    printed, audited = inputs(Elsewhere())
    assert (printed["name"], printed["path"]) == ("tail", "/var/log/*.log")
    assert (audited["tag"], audited["path"]) == ("audited.qdrant.qdrant", "/var/qdrant/audit/audit.*.log")
    printed, *audits = inputs(Engine())
    # Whoever speaks to the port is taken for a service, never for the audit log.
    assert (printed["name"], printed["tag_prefix"]) == ("forward", "printed.")
    assert [given["tag"] for given in audits] == ["audited.qdrant.qdrant-0", "audited.qdrant.qdrant-1"]


@pytest.mark.requirement("S4-08")
@pytest.mark.parametrize(
    ("loki", "audit", "written"), [(True, None, True), (False, None, False), (False, True, True), (True, False, False)]
)
def test_qdrant_writes_its_audit_log_when_logs_are_kept_unless_it_is_said(
    loki: bool, audit: bool | None, written: bool
) -> None:
    settings = environment(monitoring={"loki": {"enabled": loki}}, qdrant={"audit": audit})
    config = rendered(settings)["qdrant"]["config.yaml"]
    assert ("audit" in config) is written
    if written:
        assert config["audit"]["enabled"] is True
        # Beside the data: who reads the one has no way to the other.
        assert config["audit"]["dir"] == "/var/qdrant/audit"
        assert not config["audit"]["dir"].startswith(config["storage"]["storage_path"])
    if loki:
        agent = rendered(settings)["fluent-bit"]["fluent-bit.yaml"]
        assert any("audit" in given.get("parser", "") for given in agent["pipeline"]["inputs"]) is written


def test_grafana_has_the_source_and_the_board_where_logs_are_kept() -> None:
    for values, there in ((ON, True), ({}, False)):
        found = rendered(environment(monitoring=values))["grafana"]
        sources = {s["uid"]: s["type"] for s in found["provisioning/datasources/plinth.yaml"]["datasources"]}
        assert ("plinth-loki" in sources, "dashboards/logs.json" in found) == (there, there)
        assert sources["plinth-prometheus"] == "prometheus"


def test_their_ports_are_looked_after_and_kubernetes_is_refused() -> None:
    keys = {f"monitoring.loki.{key}" for key in ("port", "agent_port", "intake_port")}
    assert keys <= set(ports(environment("docker", monitoring=ON)))
    assert keys & set(ports(environment(monitoring=ON))) == keys - {"monitoring.loki.intake_port"}
    assert not keys & set(ports(environment()))
    assert any("the cluster's own collector" in said for said in refusals(environment("kubernetes", monitoring=ON), {}))
    assert any(
        "both 9090" in said for said in refusals(environment(monitoring={"loki": {"enabled": True, "port": 9090}}), {})
    )


def label(tag: str, record: dict[str, str]) -> dict[str, str]:
    """What the agent's script makes of a record."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.execute((ROOT / "config" / "fluent-bit" / "label.lua").read_text())
    code, _, found = lua.globals().label(tag, 0, lua.table_from(record))
    assert code == 2
    return dict(found)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026-11-21T11:15:21.123456Z  INFO qdrant::startup: Qdrant is ready", "info"),
        ("2026-11-21T11:15:21.123456Z \x1b[33m WARN\x1b[0m collection: no error here", "warn"),
        ("2026-11-21T11:15:21.123456Z ERROR qdrant::startup: Panic occurred", "error"),
        ("2026-11-21 11:15:21.123 UTC [12] LOG:  database system is ready to accept connections", "info"),
        ('2026-11-21 11:15:21.123 UTC [12] postgres@postgres ERROR:  relation "x" does not exist', "error"),
        ("2026-11-21 11:15:21.123 UTC [12] FATAL:  the database system is starting up", "fatal"),
        ("12:M 21 Nov 2026 11:15:21.123 * Ready to accept connections tcp", "info"),
        ("12:M 21 Nov 2026 11:15:21.123 # Can't save in background: fork", "warn"),
        ('ts=2026-11-21T11:15:21.123Z caller=main.go:1 level=info msg="Server is ready; ERROR is a word"', "info"),
        ('time=2026-11-21T11:15:21.123Z level=ERROR source=main.go:1 msg="x"', "error"),
        ('logger=context t=2026-11-21T11:15:21Z level=warn msg="x"', "warn"),
        ("2026-11-21 11:15:21,123 WARNING httpx said so", "warn"),
        ("2026-11-21 11:15:21,123 INFO success: qdrant entered RUNNING state", "info"),
        ("Traceback (most recent call last):", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_lines_level_is_read_from_it(line: str, level: str) -> None:
    found = label("printed.x.x-0", {"log": line, "container_id": "abc", "source": "stderr"})
    assert found["level"] == level
    assert (found["service"], found["node"], found["kind"]) == ("x", "x-0", "printed")
    # Of what the engine adds nothing is left, so that the line stands alone.
    assert set(found) == {"log", "level", "service", "node", "kind"}
    assert "\x1b" not in found["log"]


@given(st.text())
def test_no_line_makes_a_label_of_its_own(line: str) -> None:
    assert label("printed.x.x", {"log": line})["level"] in LEVELS


@pytest.mark.parametrize(
    ("service", "ended", "level"),
    [
        ("qdrant", {"result": "ok"}, "info"),
        ("qdrant", {"result": "denied"}, "warn"),
        ("gateway", {"outcome": "OK"}, "info"),
        ("gateway", {"outcome": "PERMISSION_DENIED"}, "warn"),
        ("gateway-worker", {"outcome": "OK"}, "info"),
    ],
)
def test_an_audited_request_keeps_its_fields_and_stands_out_when_it_was_refused(
    service: str, ended: dict[str, str], level: str
) -> None:
    asked = {"operation": "upsert", "collection": "trades_v1", **ended}
    added = {"level": level, "kind": "audited", "service": service, "node": f"{service}-2"}
    assert label(f"audited.{service}.{service}-2", asked) == asked | added


@pytest.mark.requirement("S4-08")
@pytest.mark.parametrize("is_on", [True, False])
def test_the_gateways_audit_logs_are_read_where_it_runs(is_on: bool) -> None:
    settings = environment(monitoring=ON, qdrant={"audit": False}, gateway={"enabled": is_on})
    config = rendered(settings)["fluent-bit"]["fluent-bit.yaml"]
    parsers = {parser["name"]: parser for parser in config["parsers"]}
    read = {given["tag"]: given["path"] for given in config["pipeline"]["inputs"] if "parser" in given}
    expected = {f"audited.{name}.{name}": f"/var/{name}/audit/audit.jsonl" for name in ("gateway", "gateway-worker")}
    assert read == (expected if is_on else {})
    moment = datetime.now(UTC)
    line = json.loads(AuditRecord("get", "r", None, None, 0, "OK", 1, "rest").to_line(moment))
    parser = parsers["gateway_audit"]
    # Fluent Bit's %L is Python's .%f.
    layout = parser["time_format"].replace(".%L", ".%f")
    assert datetime.strptime(line[parser["time_key"]], layout) == moment
