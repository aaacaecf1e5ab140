"""What a workload names is there before it: a chart tells so whoever makes objects side by side, as Pulumi does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from plinth.targets.kubernetes.charts import CHARTS
from tests.charts.rendering import Object, ci_files, named, needs_helm, of, parsed, pods, text
from tests.charts.test_environments import SETTINGS, target

pytestmark = needs_helm
ANNOTATION = "config.kubernetes.io/depends-on"
# Where pods name objects, and of which kind those are; whether the name is a string or an object's `name`.
NAMED_BY = {
    "serviceAccountName": "ServiceAccount",
    "priorityClassName": "PriorityClass",
    "claimName": "PersistentVolumeClaim",
    "secretName": "Secret",
    "secret": "Secret",
    "secretKeyRef": "Secret",
    "secretRef": "Secret",
    "imagePullSecrets": "Secret",
    "configMap": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "configMapRef": "ConfigMap",
}


def named_in(part: Any) -> set[tuple[str, str]]:
    """The kind and name of each object that a pod names, wherever in it."""
    if isinstance(part, list):
        return set().union(*map(named_in, part))
    if not isinstance(part, dict):
        return set()
    found = set().union(*map(named_in, part.values()))
    for key, kind in NAMED_BY.items():
        for about in part[key] if isinstance(part.get(key), list) else [part.get(key)]:
            name = about.get("name") if isinstance(about, dict) else about
            found |= {(kind, name)} if name else set()
    return found


def behind(workload: Object) -> set[tuple[str, str]]:
    """What a workload says that it comes behind."""
    listed = (workload["metadata"].get("annotations") or {}).get(ANNOTATION, "")
    found = set()
    for one in filter(None, listed.split(",")):
        group, namespaces, namespace, kind, name = one.split("/")
        assert (group, namespaces, namespace) == ("", "namespaces", workload["metadata"]["namespace"]), one
        found.add((kind, name))
    return found


def workloads(found: list[Object]) -> list[tuple[Object, set[tuple[str, str]]]]:
    """What makes pods, with what those name; a test of Helm's comes when all of it is there."""
    hooks = [o for o in found if "helm.sh/hook" in (o["metadata"].get("annotations") or {})]
    made = [(each, [pod for _, pod in pods([each])]) for each in found if each not in hooks]
    return [(each, named_in(its)) for each, its in made if its]


@pytest.mark.parametrize("path", ci_files(), ids=named)
def test_a_workload_comes_behind_each_object_of_its_chart_that_it_names(path: Path) -> None:
    found = of(path)
    made = {(o["kind"], o["metadata"]["name"]) for o in found}
    for workload, names in workloads(found):
        # One that the chart does not make would be refused.
        assert behind(workload) == names & made, workload["metadata"]["name"]


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_what_a_workload_of_an_environment_names_is_made_before_its_chart_or_in_it(name: str) -> None:
    wanted = target(SETTINGS[name])
    by_chart = {chart: parsed(text(chart, yaml.safe_dump(wanted.values(chart)), chart)) for chart in wanted.charts()}
    made = {chart: {(o["kind"], o["metadata"]["name"]) for o in found} for chart, found in by_chart.items()}
    secrets = {("Secret", secret) for secret in wanted.secrets()}
    seen = 0
    for chart, found in by_chart.items():
        first = secrets.union(*(made.get(other, set()) for other in CHARTS[chart].behind))
        for workload, names in workloads(found):
            assert names <= behind(workload) | first, workload["metadata"]["name"]
            seen += len(names)
    assert seen


def test_a_name_is_found_wherever_a_pod_has_it() -> None:
    """Else the tests above would prove nothing."""
    pod = {
        "serviceAccountName": "a",
        "priorityClassName": "p",
        "imagePullSecrets": [{"name": "i"}],
        "containers": [
            {
                "env": [{"valueFrom": {"secretKeyRef": {"name": "e", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "f"}}],
            }
        ],
        "volumes": [
            {"configMap": {"name": "c"}},
            {"secret": {"secretName": "s"}},
            {"persistentVolumeClaim": {"claimName": "v"}},
            {"projected": {"sources": [{"secret": {"name": "t"}}, {"configMap": {"name": "d"}}]}},
        ],
    }
    assert named_in(pod) == {
        ("ServiceAccount", "a"),
        ("PriorityClass", "p"),
        *(("Secret", name) for name in "iest"),
        *(("ConfigMap", name) for name in "fcd"),
        ("PersistentVolumeClaim", "v"),
    }
