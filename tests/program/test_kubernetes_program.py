"""`staging` and `prod` under Pulumi's mocks: namespace, Secrets, charts, gates, and no secret in the clear.

Mocks show a chart's inputs and none of its children: those are tests/engine/test_kubernetes_recorded.py's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plinth.errors import UserError
from plinth.settings.loader import load_settings, parse
from plinth.targets.kubernetes.charts import MARK
from plinth.targets.kubernetes.target import NOT_YET
from tests.conftest import ROOT
from tests.containers.wire import UNKNOWN, in_the_clear, to_plain
from tests.program.recorder import SECRET, Recorder

Run = Callable[..., Recorder]
QDRANT_ALONE: dict[str, Any] = {
    "target": "kubernetes",
    "kubernetes": {"namespace": "vectors"},
    "qdrant": {"nodes": 3, "replication_factor": 2},
    "postgres": {"enabled": False},
    "redis": {"enabled": False},
    "monitoring": {name: {"enabled": False} for name in ("prometheus", "alertmanager", "grafana", "exporters")},
}
MANAGED: dict[str, Any] = {
    "target": "kubernetes",
    "kubernetes": {
        "managed": {
            "qdrant_url": "https://x.cloud.test:6333",
            "qdrant_grpc_url": "https://x.cloud.test:6334",
            "postgres_url": "postgresql://admin@pg.test:5433",
            "redis_url": "rediss://redis.test:6380",
        }
    },
    "qdrant": {"api_key": "given-key"},
    "postgres": {"superuser_password": "given-password", "databases": [{"name": "digi_core"}]},
    "redis": {"password": "given-redis"},
    "monitoring": QDRANT_ALONE["monitoring"],
}


@pytest.mark.parametrize("env", ["staging", "prod"])
def test_an_environment_is_four_charts_with_their_databases_and_collections(run: Run, env: str) -> None:
    recorder = run(load_settings(ROOT, env))
    assert set(recorder.of("Chart")) == {"qdrant", "postgres", "redis", "monitoring"}
    others = {"postgres", "redis", "prometheus", "alertmanager", "grafana", "redis-exporter", "postgres-exporter"}
    assert set(recorder.of("Ready")) == {f"{name}-ready" for name in others | {f"qdrant-{n}" for n in range(3)}}
    assert set(recorder.of("Database")) == {"database-digi_core", "database-lernmi", "database-beep_boop"}
    assert SECRET not in json.dumps(to_plain(recorder.of("Chart")))


@pytest.mark.parametrize("image", ["registry.test/plinth:0.1.0", None])
def test_the_gateway_is_a_chart_of_two_parts_where_a_registry_has_its_image(run: Run, image: str | None) -> None:
    images = {"images": {"plinth": image}} if image else {}
    values = {"target": "kubernetes", "kubernetes": images, "backup": {"enabled": False}}
    recorder = run(parse({**values, "gateway": {"enabled": True, "tls": {}}}, source="x"))
    parts = {"gateway-ready", "gateway-worker-ready"}
    assert ("gateway" in recorder.of("Chart"), parts <= set(recorder.of("Ready"))) == (bool(image), bool(image))
    secrets = {
        inputs["metadata"]["name"]: set(to_plain(inputs["stringData"])) for inputs in recorder.of("Secret").values()
    }
    if image:
        assert secrets["gateway-stores"] == {"postgres-password", "redis-password", "qdrant-api-key"}
        assert secrets["gateway-callers"] == {"metrics-token", "signing-key"}
        assert secrets["gateway-tls"] == {"tls.crt", "tls.key"}
    assert SECRET not in json.dumps(to_plain(recorder.of("Chart")))


@pytest.mark.requirement("S1-03")
@pytest.mark.parametrize("preview", [False, True])
def test_a_cluster_is_one_chart_behind_gates(run: Run, preview: bool) -> None:
    recorder = run(parse(QDRANT_ALONE, source="x"), preview=preview)
    assert set(recorder.of("Chart")) == {"qdrant"}
    assert set(recorder.of("Namespace")) == {"namespace"}
    assert set(recorder.of("Secret")) == {"secret-qdrant-keys"}
    assert set(recorder.of("Rollout")) == {"qdrant-rollout"}
    assert set(recorder.of("Ready")) == {f"qdrant-{n}-ready" for n in range(3)}
    assert set(recorder.of("ClusterReady")) == {f"qdrant-{n}-cluster-ready" for n in range(3)}
    assert len(recorder.of("Collection")) == 9


def test_one_node_is_rolled_by_kubernetes_itself(run: Run) -> None:
    recorder = run(parse({**QDRANT_ALONE, "qdrant": {"tls": {}}}, source="x"))
    assert recorder.of("Rollout") == {}
    chart = to_plain(recorder.of("Chart")["qdrant"])
    assert chart["values"]["updateStrategy"] == {"partition": 0}
    assert chart["skipAwait"] is False
    assert set(recorder.of("Secret")) == {"secret-qdrant-keys", "secret-qdrant-tls"}


@pytest.mark.requirement("S1-14")
def test_secrets_are_in_secrets_alone_and_those_are_marked(run: Run) -> None:
    recorder = run(parse({**QDRANT_ALONE, "qdrant": {**QDRANT_ALONE["qdrant"], "tls": {}}}, source="x"))
    contents = to_plain(recorder.of("Secret"))
    assert contents["secret-qdrant-keys"]["stringData"] == {"api-key": SECRET, "read-only-api-key": SECRET}
    assert set(contents["secret-qdrant-tls"]["stringData"]) == {"tls.crt", "tls.key", "ca.crt"}
    for name, (kind, inputs) in recorder.resources.items():
        if kind in ("Secret", "Chart", "Namespace", "Ready", "ClusterReady", "Rollout"):
            assert SECRET not in json.dumps(in_the_clear(inputs)), name
    assert SECRET not in json.dumps(to_plain(recorder.of("Chart")))


def marks_of(chart: dict[str, Any]) -> set[str]:
    """The checksums of secrets that a chart puts onto its pods."""
    values = chart["values"]
    return {*values.get("secretMarks", {}).values(), *values.get("podAnnotations", {}).get(MARK, "").split()}


def test_a_preview_knows_all_of_a_chart_before_its_secrets_are_generated(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chart of which a part is unknown is previewed as if its objects were to go, which are protected."""
    monkeypatch.setattr("tests.program.recorder.SECRET", UNKNOWN)
    charts = run(load_settings(ROOT, "prod"), preview=True).of("Chart")
    assert charts
    for name, chart in charts.items():
        assert marks_of(to_plain(chart)) == {NOT_YET}, name


def test_an_up_marks_each_secret_by_itself(run: Run) -> None:
    charts = run(load_settings(ROOT, "prod")).of("Chart")
    for name, chart in charts.items():
        marks = marks_of(to_plain(chart))
        assert marks, name
        assert all(re.fullmatch("[0-9a-f]{12}", mark) for mark in marks), name


def test_the_namespace_lets_restricted_pods_in_alone(run: Run) -> None:
    labels = run(parse(QDRANT_ALONE, source="x")).of("Namespace")["namespace"]["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}
    assert labels["plinth.dev/stack"] == "test"


def test_the_namespace_bounds_what_its_pods_write_on_their_machines(run: Run) -> None:
    recorder = run(parse(QDRANT_ALONE, source="x"))
    assert to_plain(recorder.of("ResourceQuota")["quota"])["spec"] == {"hard": {"limits.ephemeral-storage": "7Gi"}}
    silent = to_plain(recorder.of("LimitRange")["limit-range"])["spec"]["limits"][0]
    assert set(silent["default"]) == set(silent["defaultRequest"]) == {"ephemeral-storage"}


def test_what_others_run_is_used_and_not_deployed(run: Run) -> None:
    recorder = run(parse(MANAGED, source="x"))
    assert recorder.of("Chart") == recorder.of("Ready") == recorder.of("Namespace") == {}
    assert {c["url"] for c in recorder.of("Collection").values()} == {"https://x.cloud.test:6333"}
    server = json.loads(to_plain(recorder.of("Database")["database-digi_core"])["server"])
    assert server == {"host": "pg.test", "port": 5433, "user": "admin", "password": "given-password"}


@pytest.mark.parametrize("part", ["qdrant", "postgres", "redis"])
def test_a_password_of_someone_elses_store_cannot_be_generated(run: Run, part: str) -> None:
    with pytest.raises(UserError, match=rf"is run by someone else and plinth:{part}\.\w+ is not set"):
        run(parse({**MANAGED, part: {}}, source="x"))


BACKED_UP: dict[str, Any] = {
    "target": "kubernetes",
    "kubernetes": {"images": {"plinth": "registry.test/plinth:0.1.0"}},
    "backup": {"repository": "s3:https://s3.test/b", "s3": {"access_key_id": "given-id", "secret_access_key": "given"}},
}


@pytest.mark.requirement("S1-06")
def test_backups_are_a_chart_behind_the_stores_and_before_the_exporter(run: Run) -> None:
    recorder = run(parse(BACKED_UP, source="x"))
    assert set(recorder.of("Chart")) == {"qdrant", "postgres", "redis", "backup", "monitoring"}
    order = [name for name, (kind, _) in recorder.resources.items() if kind == "Chart"]
    assert order.index("backup") == 3
    # Claims wait for the first job, and there is no server to probe.
    assert recorder.of("Chart")["backup"]["skipAwait"] is True
    assert "plinth-backup-ready" not in recorder.of("Ready")
    assert "plinth-exporter-ready" in recorder.of("Ready")
    held = to_plain(recorder.of("Secret")["secret-backup-keys"])["stringData"]
    keys = {"restic-password": SECRET, "aws-access-key-id": "given-id", "aws-secret-access-key": "given"}
    assert held == {**keys, "copy-password": SECRET}
    values = to_plain(recorder.of("Chart")["backup"])["values"]
    assert values["repository"]["secretEnvironment"] == {
        "AWS_ACCESS_KEY_ID": "aws-access-key-id",
        "AWS_SECRET_ACCESS_KEY": "aws-secret-access-key",
    }


@pytest.mark.requirement("S1-06")
def test_who_signed_for_the_repositorys_server_is_a_key_of_the_backups_secret(run: Run, tmp_path: Path) -> None:
    given = tmp_path / "s3-ca.pem"
    given.write_text("PEM")
    wanted = parse({**BACKED_UP, "backup": {**BACKED_UP["backup"], "ca_cert": str(given)}}, source="x")
    recorder = run(wanted)
    assert to_plain(recorder.of("Secret")["secret-backup-keys"])["stringData"]["ca.crt"] == "PEM"
    assert to_plain(recorder.of("Chart")["backup"])["values"]["repository"]["caKey"] == "ca.crt"
    given.unlink()
    with pytest.raises(UserError, match=r"plinth:backup\.ca_cert names .*s3-ca\.pem, which cannot be read"):
        run(wanted)


@pytest.mark.requirement("S1-06")
def test_backups_in_a_claim_hold_no_key_of_a_bucket(run: Run) -> None:
    recorder = run(parse({**BACKED_UP, "backup": {}}, source="x"))
    assert set(to_plain(recorder.of("Secret")["secret-backup-keys"])["stringData"]) == {
        "restic-password",
        "copy-password",
    }
    assert to_plain(recorder.of("Chart")["backup"])["values"]["repository"]["location"] == "/var/lib/plinth/repository"


def test_an_image_that_no_registry_has_leaves_its_services_out(run: Run) -> None:
    recorder = run(parse({**BACKED_UP, "kubernetes": {}}, source="x"))
    assert "backup" not in recorder.of("Chart")
    assert to_plain(recorder.of("Chart")["monitoring"])["values"]["plinthExporter"] == {"enabled": False}


def test_where_qdrant_is_published_its_collections_go(run: Run) -> None:
    published = {"kubernetes": {"namespace": "vectors", "qdrant_url": "https://vectors.test:443"}}
    recorder = run(parse({**QDRANT_ALONE, **published}, source="x"))
    assert {c["url"] for c in recorder.of("Collection").values()} == {"https://vectors.test:443"}
    probes = [json.loads(inputs["probe"]) for inputs in recorder.of("Ready").values()]
    assert [(probe["host"], probe["port"]) for probe in probes] == [("127.0.0.1", 16333 + 10 * n) for n in range(3)]


def test_a_chart_that_is_missing_is_a_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.targets.kubernetes.target.chart_of", lambda service: "nowhere")
    with pytest.raises(UserError, match=r"There is no chart in .*charts/nowhere; take the whole clone"):
        run(parse(QDRANT_ALONE, source="x"))


def test_the_redis_exporter_gets_a_password_of_its_own_for_one_address_and_redis_the_same(run: Run) -> None:
    recorder = run(load_settings(ROOT, "staging"))
    exporter = to_plain(recorder.of("Secret")["secret-monitoring-redis"])["stringData"]
    assert set(exporter) == {"passwords.json"}
    passwords = json.loads(exporter["passwords.json"])
    host = to_plain(recorder.of("Chart")["monitoring"])["values"]["redisExporter"]["address"]
    assert passwords == {f"redis://{host}": SECRET, f"redis://plinth_exporter@{host}": SECRET}
    server = to_plain(recorder.of("Secret")["secret-redis-keys"])["stringData"]
    assert set(server) == {"redis-password", "exporter-password"}
    assert "redis_exporter_password" in recorder.of("GeneratedSecret")
