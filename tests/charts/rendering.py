"""The charts as real Helm renders them; each rendering is made once."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from tests.conftest import ROOT

CHARTS = ROOT / "charts"
NAMES = sorted(path.parent.name for path in CHARTS.glob("*/Chart.yaml"))
# Every kind that a chart makes of what is not Kubernetes' own.
APIS = [
    *(f"monitoring.coreos.com/v1/{kind}" for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")),
    *(f"gateway.networking.k8s.io/v1/{kind}" for kind in ("HTTPRoute", "GRPCRoute")),
    "postgresql.cnpg.io/v1/Cluster",
    "postgresql.cnpg.io/v1/Database",
]
VERSIONS = ("1.30", "1.34", "1.37")
# The validator reads its definitions, megabytes, anew for every object.
utils.schema_contents = functools.cache(utils.schema_contents)
HELM = shutil.which("helm") or (built if os.access(built := str(ROOT / ".plinth/bin/helm"), os.X_OK) else None)
needs_helm = pytest.mark.skipif(HELM is None, reason="no helm binary: run scripts/helm-binary, or put it on PATH")

Object = dict[str, Any]


def ci_files() -> list[Path]:
    return sorted(CHARTS.glob("*/ci/*-values.yaml"))


def named(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.stem.removesuffix('-values')}"


def helm(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run([HELM, *arguments], input=given, capture_output=True, text=True, timeout=60, check=False)


@cache
def text(chart: str, values: str, release: str = "r", apis: tuple[str, ...] = tuple(APIS)) -> str:
    """What Helm renders of a chart, for values as YAML."""
    done = _template(chart, values, release, apis)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(chart: str, values: str, apis: tuple[str, ...] = tuple(APIS)) -> str:
    """What Helm says when it refuses values."""
    done = _template(chart, values, "r", apis)
    assert done.returncode != 0, "it was accepted"
    return done.stderr


def _template(chart: str, values: str, release: str, apis: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    given = [option for api in apis for option in ("--api-versions", api)]
    return helm("template", release, str(CHARTS / chart), "--namespace", "vectors", "-f", "-", *given, given=values)


def objects(chart: str, values: str | dict[str, Any], release: str = "r") -> list[Object]:
    """The objects of a rendering."""
    return parsed(text(chart, values if isinstance(values, str) else json.dumps(values), release))


@cache
def _parsed(rendered: str) -> str:
    return json.dumps([found for found in yaml.load_all(rendered, Loader=yaml.CSafeLoader) if found])


def parsed(rendered: str) -> list[Object]:
    found: list[Object] = json.loads(_parsed(rendered))
    return found


def of(path: Path) -> list[Object]:
    """The objects of a chart with one of its ci files."""
    return objects(path.parent.parent.name, path.read_text())


def check(found: Object, version: str) -> None:
    """Hold an object strictly against the API of a Kubernetes; one of a kind that others bring is not known there."""
    if not any(api.rpartition("/")[0] == found["apiVersion"] for api in APIS):
        kubernetes_validate.validate(found, version, strict=True)


def one(found: list[Object], kind: str, name: str | None = None) -> Object:
    """The one object of a kind."""
    matching = [o for o in found if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(matching) == 1, [o["metadata"]["name"] for o in matching]
    return matching[0]


def pods(found: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod that the objects make, as `metadata` and `spec`, with the name of what makes it."""
    for made in found:
        name = f"{made['kind']}/{made['metadata']['name']}"
        match made["kind"]:
            case "Pod":
                yield name, made
            case "StatefulSet" | "Deployment" | "DaemonSet" | "Job":
                yield name, made["spec"]["template"]
            case "CronJob":
                yield name, made["spec"]["jobTemplate"]["spec"]["template"]


def containers(pod: Object) -> list[Object]:
    """Its containers, those that run first included."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


class Place:
    """Where charts put a service, as far as its configuration asks: each test says what is particular."""

    stack, bind, node, output, cgroups = "t", "0.0.0.0", 0, None, None

    def address(self, service: str, port: str) -> str:
        raise AssertionError((service, port))

    def addresses(self, service: str, port: str) -> list[str]:
        return [self.address(service, port)]

    def peer(self, service: str, node: int, port: str) -> str:
        raise AssertionError((service, node, port))

    def file(self, service: str, name: str) -> str:
        raise AssertionError((service, name))

    def volume(self, service: str, name: str) -> str:
        raise AssertionError((service, name))

    def takes_url_files(self) -> bool:
        return True

    def read(self, service: str, name: str) -> dict[str, str]:
        raise AssertionError((service, name))
