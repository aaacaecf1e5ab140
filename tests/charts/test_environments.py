"""Every environment on Kubernetes as real Helm renders it: Restricted, and called what the target calls it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from plinth.environment import load_settings, parse
from plinth.images import images
from plinth.services import services
from plinth.settings import Settings
from plinth.targets.kubernetes import KubernetesTarget
from plinth.targets.kubernetes.names import object_name
from tests.charts.rendering import needs_helm, text
from tests.charts.restricted import violations
from tests.conftest import ROOT

pytestmark = needs_helm
DATABASES = {"databases": [{"name": "digi_core"}]}
SETTINGS: dict[str, Settings] = {
    **{env: load_settings(ROOT, env) for env in ("staging", "prod")},
    "small-with-tls": parse(
        {
            "target": "kubernetes",
            "qdrant": {"tls": {}},
            "postgres": DATABASES,
            "monitoring": {"alertmanager": {"webhook_url": "https://page.test", "heartbeat_url": "https://beat.test"}},
        },
        source="x",
    ),
    "managed": parse(
        {
            "target": "kubernetes",
            "kubernetes": {
                "managed": {
                    "qdrant_url": "https://x.test:6333",
                    "qdrant_grpc_url": "https://x.test:6334",
                    "postgres_url": "postgresql://admin@pg.test:5432",
                }
            },
            "qdrant": {"api_key": "a", "read_only_api_key": "b"},
            "postgres": {"superuser_password": "c"},
            "monitoring": {"grafana": {"enabled": False}},
        },
        source="x",
    ),
}


def target(settings: Settings) -> KubernetesTarget:
    where = settings.kubernetes
    known = images(ROOT, where.registry_mirror, where.images)
    return KubernetesTarget("t", settings, ROOT, known, services(settings, ROOT))


def objects(made: KubernetesTarget) -> list[dict[str, Any]]:
    """Everything that the charts of an environment make; tests of the charts' own are Helm's to run."""
    rendered = [text(chart, yaml.safe_dump(made.values(chart)), chart) for chart in made.charts()]
    found = [found for one in rendered for found in yaml.safe_load_all(one) if found]
    return [found for found in found if "helm.sh/hook" not in (found["metadata"].get("annotations") or {})]


def of(kind: str, made: KubernetesTarget) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in objects(made) if found["kind"] == kind}


@pytest.fixture(params=sorted(SETTINGS))
def made(request: pytest.FixtureRequest) -> KubernetesTarget:
    return target(SETTINGS[request.param])


@pytest.mark.requirement("S1-14")
def test_every_pod_keeps_to_restricted(made: KubernetesTarget) -> None:
    for kind in ("StatefulSet", "Deployment"):
        for name, found in of(kind, made).items():
            assert violations(found["spec"]["template"]) == [], name


def test_volumes_are_called_and_sized_as_the_target_grows_them(made: KubernetesTarget) -> None:
    sizes = {
        name: {
            claim["metadata"]["name"]: int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) << 30
            for claim in found["spec"].get("volumeClaimTemplates", [])
        }
        for name, found in of("StatefulSet", made).items()
    }
    assert {name: claims for name, claims in sizes.items() if claims} == made.claims()


def test_every_way_in_leads_to_pods_that_there_are(made: KubernetesTarget) -> None:
    pods = [
        {
            **found["spec"]["template"]["metadata"]["labels"],
            **({"statefulset.kubernetes.io/pod-name": f"{name}-{number}"} if kind == "StatefulSet" else {}),
            "ports": {
                port["containerPort"]
                for container in found["spec"]["template"]["spec"]["containers"]
                for port in container["ports"]
            },
        }
        for kind in ("StatefulSet", "Deployment")
        for name, found in of(kind, made).items()
        for number in range(found["spec"]["replicas"])
    ]
    for route in made.routes():
        wanted = dict(part.split("=") for part in route.selector.split(","))
        led = [pod for pod in pods if wanted.items() <= pod.items()]
        assert len(led) == 1, route
        assert route.port in led[0]["ports"], route


def test_every_service_has_the_name_and_the_port_that_others_call(made: KubernetesTarget) -> None:
    named = of("Service", made)
    for service in made.services.values():
        ports = {port["port"] for port in named[object_name(service.name)]["spec"]["ports"]}
        assert ports == set(service.ports.values()), service.name


@pytest.mark.requirement("S1-14")
def test_every_secret_that_a_pod_reads_is_made_first(made: KubernetesTarget) -> None:
    told = made.secrets()
    for found in objects(made):
        for name, key in secrets_read(found):
            assert key in told[name], (found["metadata"]["name"], name, key)
    assert not of("Secret", made)


def secrets_read(found: Any) -> set[tuple[str, str]]:
    """Each Secret and key that an object names, wherever in it."""
    if isinstance(found, list):
        return set().union(*map(secrets_read, found))
    if not isinstance(found, dict):
        return set()
    read = set().union(*map(secrets_read, found.values()))
    if "secretKeyRef" in found:
        read.add((found["secretKeyRef"]["name"], found["secretKeyRef"]["key"]))
    for about in (found.get("secret"), found):
        if isinstance(about, dict) and "items" in about and ("secretName" in about or found.get("secret") is about):
            name = about.get("secretName") or about["name"]
            read |= {(name, item["key"]) for item in about["items"]}
    return read
