"""Upgrades: between values, and from what was released, nothing changes that Kubernetes refuses to change."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.charts.rendering import CHARTS, NAMES, Object, named, needs_helm, objects
from tests.charts.rendering import ci_files as files
from tests.charts.upgrades import immutable_changes, removed

BASELINES = Path(__file__).parent / "baselines"
KEYS = "auth: {existingSecret: k}\n"
TWICE = "config: {storage: {collection: {replication_factor: 2}}}\n"


def stateful(**spec: Any) -> list[Object]:
    return [{"kind": "StatefulSet", "metadata": {"name": "s"}, "spec": {"serviceName": "h", "replicas": 1, **spec}}]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("serviceName", "other"),
        ("selector", {"matchLabels": {"a": "b"}}),
        ("podManagementPolicy", "OrderedReady"),
        ("volumeClaimTemplates", [{"metadata": {"name": "v"}}]),
    ],
)
def test_an_immutable_field_of_a_stateful_set_is_seen(field: str, value: object) -> None:
    assert immutable_changes(stateful(), stateful(**{field: value})) == [f"StatefulSet/s: {field}"]


@pytest.mark.parametrize("field", ["replicas", "template", "updateStrategy", "minReadySeconds"])
def test_what_can_be_changed_is_not_held_against_it(field: str) -> None:
    assert immutable_changes(stateful(), stateful(**{field: 3})) == []


def test_a_headless_service_cannot_get_an_address() -> None:
    before, after = ([{"kind": "Service", "metadata": {"name": "s"}, "spec": {"clusterIP": ip}}] for ip in ("None", ""))
    assert immutable_changes(before, after) == ["Service/s: clusterIP"]
    assert removed(stateful(), []) == ["StatefulSet/s"]


@needs_helm
@pytest.mark.parametrize(
    ("chart", "before", "after"),
    [
        ("qdrant", KEYS, KEYS + TWICE + "replicas: 3\n"),
        ("qdrant", KEYS + TWICE + "replicas: 3\n", KEYS + TWICE + "replicas: 5\ntier: large\n"),
        ("qdrant", KEYS, KEYS + "tls: {enabled: true, existingSecret: t}\n"),
        ("qdrant", KEYS, KEYS + "image: {tag: v1.19.0-unprivileged}\npodLabels: {a: b}\ncommonLabels: {c: d}\n"),
        ("qdrant", KEYS, KEYS + "existingConfigSecret: c\n"),
        ("redis", KEYS, KEYS + "maxmemoryMib: 2048\nexistingConfigSecret: c\n"),
        ("postgres", KEYS, KEYS + "memoryMib: 4096\ndatabases: [{name: a, passwordKey: a}]\n"),
        (
            "monitoring",
            "",
            "prometheus: {retentionDays: 30}\nalertmanager: {existingSecret: a}\ncommonLabels: {a: b}\n",
        ),
    ],
)
def test_what_an_operator_changes_can_be_changed(chart: str, before: str, after: str) -> None:
    common = ""
    if chart == "monitoring":
        common = "qdrant: {targets: ['q:6333']}\nlogin: {existingSecret: l}\ngrafana: {existingSecret: g}\n"
    old, new = objects(chart, common + before), objects(chart, common + after)
    assert immutable_changes(old, new) == []
    assert removed(old, new) == []


@needs_helm
@pytest.mark.parametrize(
    "values", ["persistence: {storage: {size: 20Gi}}", "persistence: {storage: {storageClass: b}}"]
)
def test_a_volume_that_grows_is_seen_as_what_it_is(values: str) -> None:
    """Its steps are in docs/charts.md; plain Helm is refused by Kubernetes and breaks nothing."""
    changed = immutable_changes(objects("qdrant", KEYS), objects("qdrant", KEYS + values))
    assert changed == ["StatefulSet/r-qdrant: volumeClaimTemplates"]


@needs_helm
def test_a_job_that_makes_other_databases_is_another_job() -> None:
    def jobs(databases: str) -> list[Object]:
        return [o for o in objects("postgres", f"{KEYS}databases: {databases}\n") if o["kind"] == "Job"]

    before, after = jobs("[{name: a, passwordKey: a}]"), jobs("[{name: a, passwordKey: b}]")
    assert before[0]["metadata"]["name"] != after[0]["metadata"]["name"]


@needs_helm
@pytest.mark.parametrize("path", files(), ids=named)
def test_no_release_has_changed_what_cannot_change(path: Path) -> None:
    """Against what was committed of the last release: a new major version and an "Upgrading" note would be needed.

    PLINTH_WRITE_BASELINES=1 writes the files anew.
    """
    chart = path.parent.parent.name
    baseline = BASELINES / f"{named(path).replace('/', '-')}.json"
    fixed = [
        frozen(o) for o in objects(chart, path.read_text()) if o["kind"] in {"StatefulSet", "Service", "Deployment"}
    ]
    fixed += [o for o in objects(chart, path.read_text()) if o["kind"] == "PersistentVolumeClaim"]
    if os.environ.get("PLINTH_WRITE_BASELINES"):
        baseline.write_text(json.dumps(fixed, indent=1, sort_keys=True) + "\n")
    before = json.loads(baseline.read_text())
    assert immutable_changes(before, fixed) == []
    assert removed(before, fixed) == []


def frozen(found: Object) -> Object:
    """An object without what may change, so that a baseline stays small and is seldom written."""
    kept = {
        "StatefulSet": {"serviceName", "selector", "podManagementPolicy", "volumeClaimTemplates"},
        "Deployment": {"selector"},
        "Service": {"clusterIP"},
    }[found["kind"]]
    spec = {key: value for key, value in found["spec"].items() if key in kept}
    return {"kind": found["kind"], "metadata": {"name": found["metadata"]["name"]}, "spec": spec}


@pytest.mark.parametrize("chart", NAMES)
def test_every_chart_has_a_baseline(chart: str) -> None:
    wanted = {f"{named(path).replace('/', '-')}.json" for path in (CHARTS / chart / "ci").glob("*-values.yaml")}
    assert wanted <= {path.name for path in BASELINES.glob("*.json")}
