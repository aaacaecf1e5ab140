"""What holds for every chart with each of its ci files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plinth.targets.images import pins, without_digest
from tests.charts.rendering import (
    CHARTS,
    NAMES,
    VERSIONS,
    Object,
    check,
    ci_files,
    containers,
    helm,
    named,
    needs_helm,
    of,
    pods,
)
from tests.charts.rendering import text as rendered
from tests.charts.restricted import violations
from tests.conftest import ROOT

pytestmark = needs_helm
SECRET = re.compile("KEY|PASS|SECRET|TOKEN")
LABELS = {"name", "instance", "component", "version", "managed-by", "part-of"}
# Those that run Plinth's own image alone.
OF_THE_OWN_IMAGE = ("backup", "gateway")
each = pytest.mark.parametrize("path", ci_files(), ids=named)


def named_object(found: Object) -> str:
    return f"{found['kind']}/{found['metadata']['name']}"


@each
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_one_of_that_kubernetes(path: Path, version: str) -> None:
    for found in of(path):
        check(found, version)


@each
def test_helm_finds_nothing_to_complain_of(path: Path) -> None:
    done = helm("lint", "--strict", str(path.parent.parent), "-f", str(path))
    assert done.returncode == 0, done.stdout


@each
def test_every_pod_keeps_to_restricted(path: Path) -> None:
    assert {name: violations(pod) for name, pod in pods(of(path)) if violations(pod)} == {}


@each
def test_every_container_has_a_read_only_root_and_bounds(path: Path) -> None:
    for name, pod in pods(of(path)):
        for container in containers(pod):
            where = f"{name} {container['name']}"
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, where
            for bound in ("requests", "limits"):
                assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"][bound]), f"{where} {bound}"


@each
def test_no_pod_has_a_token(path: Path) -> None:
    for name, pod in pods(of(path)):
        assert pod["spec"]["automountServiceAccountToken"] is False, name
    for found in of(path):
        if found["kind"] == "ServiceAccount":
            assert found["automountServiceAccountToken"] is False
        assert found["kind"] not in {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}


@each
def test_every_volume_is_bounded_and_every_mount_has_one(path: Path) -> None:
    for found in of(path):
        for name, pod in pods([found]):
            volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
            for volume in pod["spec"].get("volumes", []):
                assert "emptyDir" not in volume or volume["emptyDir"].get("sizeLimit"), f"{name} {volume['name']}"
            volumes |= {claim["metadata"]["name"] for claim in found["spec"].get("volumeClaimTemplates", [])}
            mounted = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
            assert mounted <= volumes, name
            assert volumes <= mounted, f"{name} mounts not all of its volumes"


@each
def test_every_object_is_labelled_and_none_is_there_twice(path: Path) -> None:
    found = of(path)
    names = [named_object(o) for o in found]
    assert sorted(set(names)) == sorted(names)
    for o in found:
        labels = o["metadata"]["labels"]
        assert {f"app.kubernetes.io/{label}" for label in LABELS} | {"helm.sh/chart"} <= set(labels), named_object(o)
        assert len(o["metadata"]["name"]) <= 52, named_object(o)
        assert o["metadata"]["namespace"] == "vectors"


@each
def test_what_selects_pods_selects_those_of_the_release(path: Path) -> None:
    found = of(path)
    made = {name: pod["metadata"]["labels"] for name, pod in pods(found) if "labels" in pod.get("metadata", {})}
    for name, selector in selectors(found):
        assert not any("version" in key or "chart" in key for key in selector), name
        assert any(selector.items() <= labels.items() for labels in made.values()), name


def selectors(found: list[Object]) -> Iterator[tuple[str, dict[str, str]]]:
    for o in found:
        match o["kind"]:
            case "Service":
                yield named_object(o), o["spec"]["selector"]
            case "StatefulSet" | "Deployment" | "DaemonSet" | "PodDisruptionBudget":
                yield named_object(o), o["spec"]["selector"]["matchLabels"]
            case "NetworkPolicy":
                yield named_object(o), o["spec"]["podSelector"]["matchLabels"]


@each
def test_probes_and_services_name_ports_that_are_there(path: Path) -> None:
    found = of(path)
    for name, pod in pods(found):
        for container in containers(pod):
            ports = {port["name"] for port in container.get("ports", [])}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.get(kind, {})
                for way in ("httpGet", "tcpSocket"):
                    assert way not in probe or probe[way]["port"] in ports, f"{name} {kind}"
    for service in (o for o in found if o["kind"] == "Service"):
        chosen = [
            pod
            for _, pod in pods(found)
            if service["spec"]["selector"].items() <= pod.get("metadata", {}).get("labels", {}).items()
        ]
        ports = {p["name"] for pod in chosen for c in containers(pod) for p in c.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, named_object(service)


@each
def test_what_serves_says_when_it_is_ready(path: Path) -> None:
    for name, pod in pods(of(path)):
        if name.split("/")[0] in {"StatefulSet", "Deployment", "DaemonSet"}:
            for container in pod["spec"]["containers"]:
                if container.get("ports"):
                    assert {"readinessProbe", "livenessProbe"} <= set(container), f"{name} {container['name']}"


@each
def test_config_that_a_pod_reads_is_made_or_named(path: Path) -> None:
    """Every ConfigMap that is mounted is of the release, and no Secret is: those are the user's."""
    found = of(path)
    made = {o["metadata"]["name"] for o in found if o["kind"] == "ConfigMap"}
    assert not [named_object(o) for o in found if o["kind"] == "Secret"]
    for name, pod in pods(found):
        for volume in pod["spec"].get("volumes", []):
            sources = volume.get("projected", {}).get("sources", []) or [volume]
            for source in sources:
                assert "configMap" not in source or source["configMap"]["name"] in made, f"{name} {volume['name']}"


@pytest.mark.requirement("S1-14")
@each
def test_what_is_secret_comes_from_a_secret(path: Path) -> None:
    """No environment, argument or annotation holds a key or a password: only where it is."""
    for name, pod in pods(of(path)):
        for container in containers(pod):
            for entry in container.get("env", []):
                if SECRET.search(entry["name"]):
                    where = entry.get("valueFrom", {}).get("secretKeyRef") or entry.get("value", "").startswith("/")
                    assert where, f"{name} {entry['name']}"
            given = " ".join([*container.get("command", []), *container.get("args", [])])
            assert not re.search(r"--\w*-?(password|api-?key|token)[= ][^$/\s]", given, re.IGNORECASE), name
    for name, text in configurations(of(path)):
        for line in text.splitlines():
            setting = re.match(r"\s*(\w*(?:password|api_key|secret|token))\s*[:= ]\s*(\S+)", line, re.IGNORECASE)
            assert setting is None or setting[2].startswith(("$__file{", "/")), f"{name}: {line}"


def configurations(found: list[Object]) -> Iterator[tuple[str, str]]:
    """What is configured in plain sight: in ConfigMaps, and in the annotations of pods."""
    for made in (o for o in found if o["kind"] == "ConfigMap"):
        for key, text in made["data"].items():
            if key.endswith((".yaml", ".conf", ".ini", ".yml")):
                yield named_object(made), text
    for name, pod in pods(found):
        for text in pod.get("metadata", {}).get("annotations", {}).values():
            yield name, text


@each
def test_a_rendering_is_the_same_twice(path: Path) -> None:
    chart, values = path.parent.parent.name, path.read_text()
    again = rendered.__wrapped__(chart, values)
    assert again == rendered(chart, values)


@each
def test_two_releases_share_no_name(path: Path) -> None:
    chart, values = path.parent.parent.name, path.read_text()
    if "fullnameOverride" in values:
        pytest.skip("its name is set")
    others = {named_object(o) for o in yaml.load_all(rendered(chart, values, "other"), Loader=yaml.CSafeLoader) if o}
    assert others & {named_object(o) for o in of(path)} == set()


@pytest.mark.parametrize("chart", NAMES)
def test_an_unknown_value_is_refused(chart: str) -> None:
    done = helm("template", "r", str(CHARTS / chart), "--set", "replicsa=3")
    assert done.returncode != 0
    assert "additional properties 'replicsa' not allowed" in done.stderr


@pytest.mark.parametrize("chart", NAMES)
def test_the_chart_says_who_made_it_and_for_which_kubernetes(chart: str) -> None:
    about = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
    assert about["kubeVersion"] == ">=1.30.0-0"
    assert {"maintainers", "sources", "home", "keywords", "annotations", "appVersion"} <= set(about)
    assert list((CHARTS / chart / "ci").glob("*-values.yaml"))
    assert (CHARTS / chart / "templates" / "NOTES.txt").is_file()


def images(values: Any) -> Iterator[str]:
    """Every image that default values name."""
    if isinstance(values, dict):
        if "repository" in values and "tag" in values:
            yield f"{values['registry']}/{values['repository']}:{values['tag']}"
        for value in values.values():
            yield from images(value)


@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize("chart", NAMES)
def test_images_are_those_that_are_pinned(chart: str) -> None:
    found = list(images(yaml.safe_load((CHARTS / chart / "values.yaml").read_text())))
    known = {without_digest(reference) for reference in pins(ROOT).values()}
    # Plinth's own is given by whoever built it.
    assert found
    assert {image for image in found if not image.startswith("/")} <= known
    version = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())["appVersion"]
    assert (
        any(re.search(rf":{re.escape(version)}(-|$)", image) for image in found if image in known)
        or chart in OF_THE_OWN_IMAGE
    )
