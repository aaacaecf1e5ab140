"""A real kube-apiserver takes every manifest, strictly, in a namespace that enforces Restricted.

Nothing runs: there is no kubelet and no controller. Wants `kube-apiserver` and `etcd` on PATH, and skips without.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.charts.rendering import APIS, CHARTS, HELM, Object, ci_files, named, needs_helm, of, pods
from tests.charts.test_environments import SETTINGS, target
from tests.charts.test_environments import objects as environment
from tests.conftest import free_port
from tests.waiting import wait_for

BINARIES = {name: shutil.which(name) for name in ("kube-apiserver", "etcd")}
MISSING = [name for name, path in BINARIES.items() if path is None]
pytestmark = [needs_helm, pytest.mark.skipif(bool(MISSING), reason=f"no {' and no '.join(MISSING)} on PATH")]
TOKEN = "a-token-of-this-test"
NAMESPACE = "vectors"
each = pytest.mark.parametrize("path", ci_files(), ids=named)


@dataclass
class Api:
    """An API server, and how it is asked."""

    http: httpx.Client
    kubeconfig: Path
    resources: dict[tuple[str, str], tuple[str, bool]]

    def url(self, found: Object, namespace: str | None = None) -> str:
        version, kind = found["apiVersion"], found["kind"]
        if (version, kind) not in self.resources:
            path = f"/api/{version}" if "/" not in version else f"/apis/{version}"
            for resource in self.http.get(path).raise_for_status().json()["resources"]:
                if "/" not in resource["name"]:
                    self.resources[version, resource["kind"]] = (f"{path}", resource["namespaced"])
                    self.resources[version, f"{resource['kind']}/name"] = (resource["name"], resource["namespaced"])
        path, namespaced = self.resources[version, kind]
        where = f"/namespaces/{namespace or found['metadata'].get('namespace', NAMESPACE)}" if namespaced else ""
        return f"{path}{where}/{self.resources[version, f'{kind}/name'][0]}"

    def apply(self, found: Object, **options: str) -> httpx.Response:
        """Server-side apply; an unknown field is an error."""
        return self.http.patch(
            f"{self.url(found)}/{found['metadata']['name']}",
            params={"fieldManager": "plinth", "fieldValidation": "Strict", "force": "true", **options},
            headers={"Content-Type": "application/apply-patch+yaml"},
            content=json.dumps(found),
        )

    def try_pod(self, pod: Object) -> httpx.Response:
        """What admission says of a pod, which is not made."""
        labels = pod.get("metadata", {}).get("labels", {})
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried", "labels": labels}, "spec": pod["spec"]}
        return self.http.post(
            f"/api/v1/namespaces/{NAMESPACE}/pods", params={"dryRun": "All", "fieldValidation": "Strict"}, json=body
        )

    def helm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        assert HELM is not None
        return subprocess.run(
            [HELM, *arguments, "--namespace", NAMESPACE, "--kubeconfig", str(self.kubeconfig)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("kubernetes")
    store, peer, port = free_port(), free_port(), free_port()
    subprocess.run(["openssl", "genrsa", "-out", directory / "sa.key", "2048"], check=True, capture_output=True)
    (directory / "tokens").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    (directory / "tokens").chmod(0o600)
    own = f"http://127.0.0.1:{store}"
    commands = [
        [
            *(str(BINARIES["etcd"]), f"--data-dir={directory}/etcd"),
            *(f"--listen-client-urls={own}", f"--advertise-client-urls={own}"),
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
        ],
        [
            *(str(BINARIES["kube-apiserver"]), f"--etcd-servers={own}", f"--secure-port={port}"),
            *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--cert-dir={directory}/certificates"),
            *(f"--token-auth-file={directory}/tokens", "--authorization-mode=RBAC"),
            *("--service-account-issuer=https://plinth.test", "--service-cluster-ip-range=10.0.0.0/24"),
            f"--service-account-key-file={directory}/sa.key",
            f"--service-account-signing-key-file={directory}/sa.key",
        ],
    ]
    log = directory / "log"
    running = []
    with log.open("wb") as out:
        running = [subprocess.Popen(command, stdout=out, stderr=out, cwd=directory) for command in commands]
    url = f"https://127.0.0.1:{port}"
    user = {"name": "u", "user": {"token": TOKEN}}
    cluster = {"name": "c", "cluster": {"server": url, "insecure-skip-tls-verify": True}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    config = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "users": [user], "contexts": [context]}
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump({**config, "current-context": "x"}))
    kubeconfig.chmod(0o600)
    # The server signs its own certificate, in this directory.
    trust = ssl._create_unverified_context()
    with httpx.Client(base_url=url, verify=trust, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as http:
        made = Api(http, kubeconfig, {})

        def ready() -> bool:
            assert all(process.poll() is None for process in running), log.read_text()[-3000:]
            with suppress(httpx.HTTPError):
                return http.get("/readyz").status_code == 200
            return False

        try:
            wait_for(ready, lambda: log.read_text()[-3000:])
            prepare(made)
            yield made
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait(timeout=60)


def prepare(api: Api) -> None:
    """A namespace as the example's, kinds that others bring, and what the ci files name."""
    for found in yaml.safe_load_all((CHARTS / "namespace.yaml").read_text()):
        if found["kind"] != "ResourceQuota":
            assert api.apply(found).is_success
    for kind in APIS:
        group, version, name = kind.split("/")
        plural = f"{name.lower()}s"
        crd = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": f"{plural}.{group}",
                # The gateway's group is guarded: whoever adds to it has to say who allowed it.
                "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
            },
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": plural, "singular": name.lower(), "kind": name},
                "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": FREE}}],
            },
        }
        said = api.apply(crd)
        assert said.is_success, said.text
    wait_for(lambda: all(served(api, *kind.rsplit("/", 1)) for kind in APIS), "a kind is not served")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NAMESPACE}}
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1}
    for other in (account, priority):
        assert api.apply(other).is_success


FREE: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def served(api: Api, version: str, kind: str) -> bool:
    said = api.http.get(f"/apis/{version}")
    return said.is_success and any(resource["kind"] == kind for resource in said.json()["resources"])


def with_accounts(api: Api, found: list[Object]) -> None:
    """Pods are asked for their service account, so that is there first."""
    for made in found:
        if made["kind"] == "ServiceAccount":
            assert api.apply(made).is_success


@each
def test_every_object_is_taken(api: Api, path: Path) -> None:
    with_accounts(api, of(path))
    take(api, of(path))


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_object_of_an_environment_is_taken(api: Api, name: str) -> None:
    found = environment(target(SETTINGS[name]))
    with_accounts(api, found)
    take(api, found)


def take(api: Api, found: list[Object]) -> None:
    for made in found:
        said = api.apply(made, dryRun="All")
        assert said.is_success, f"{made['kind']}/{made['metadata']['name']}: {said.text}"
        assert "Warning" not in said.headers, said.headers["Warning"]


@each
def test_every_pod_is_let_in(api: Api, path: Path) -> None:
    with_accounts(api, of(path))
    for made in of(path):
        for name, pod in pods([made]):
            # What the controller adds for each claim.
            claims = [claim["metadata"]["name"] for claim in made["spec"].get("volumeClaimTemplates", [])]
            added = [{"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-r-0"}} for claim in claims]
            spec = pod["spec"]
            said = api.try_pod({**pod, "spec": {**spec, "volumes": [*spec.get("volumes", []), *added]}})
            assert said.is_success, f"{name}: {said.text}"


def test_a_pod_that_does_not_keep_to_restricted_is_not_let_in(api: Api) -> None:
    """Else the test above would prove nothing."""
    said = api.try_pod({"spec": {"containers": [{"name": "c", "image": "x:1"}]}})
    assert said.status_code == 403
    assert "restricted" in said.text


def test_helm_installs_upgrades_and_is_refused_what_would_cost_data(api: Api) -> None:
    chart, values = str(CHARTS / "qdrant"), str(CHARTS / "qdrant/ci/default-values.yaml")
    done = api.helm("install", "q", chart, "-f", values)
    assert done.returncode == 0, done.stderr
    assert "kubectl -n vectors port-forward svc/q-qdrant 6333" in done.stdout
    assert "qdrant-client" in done.stdout
    again = api.helm("upgrade", "q", chart, "-f", values)
    assert again.returncode == 0, again.stderr
    cluster = str(CHARTS / "qdrant/ci/cluster-values.yaml")
    same = ("--set", "persistence.storage.size=10Gi,persistence.storage.storageClass=,persistence.snapshots.size=10Gi")
    done = api.helm("upgrade", "q", chart, "-f", cluster, *same)
    assert done.returncode == 0, done.stderr
    assert "3 nodes" in done.stdout
    refused = api.helm("upgrade", "q", chart, "-f", cluster, *same, "--set", "persistence.storage.size=20Gi")
    assert refused.returncode != 0
    assert "Forbidden: updates to statefulset spec" in refused.stderr
    done = api.helm("upgrade", "q", chart, "-f", cluster, *same)
    assert done.returncode == 0, done.stderr
    assert api.helm("uninstall", "q").returncode == 0


@pytest.mark.parametrize(
    ("chart", "values", "words"),
    [
        ("qdrant", "auth.enabled=false", "there is no API key."),
        (
            "qdrant",
            "auth.existingSecret=k,serviceMonitor.enabled=true",
            "one elsewhere has to be in networkPolicy.clients",
        ),
        (
            "qdrant",
            "auth.existingSecret=k,tls.enabled=true,tls.existingSecret=t,"
            "ingress.enabled=true,ingress.host=h,ingress.tlsSecret=s",
            "what is before them has to as well",
        ),
        ("postgres", "operator.enabled=true", "who may reach the Cluster's pods is a policy of yours"),
    ],
)
def test_notes_warn_of_what_is_easy_to_miss(api: Api, chart: str, values: str, words: str) -> None:
    done = api.helm("install", "o", str(CHARTS / chart), "--set", values, "--dry-run=server")
    assert "WARNING: " in done.stdout, done.stderr
    assert words in done.stdout


@pytest.mark.parametrize("chart", ["redis", "postgres", "gateway", "monitoring", "backup"])
def test_helm_installs_the_others_and_upgrades_to_the_same(api: Api, chart: str) -> None:
    values = str(CHARTS / chart / "ci/default-values.yaml")
    done = api.helm("install", "x", str(CHARTS / chart), "-f", values)
    assert done.returncode == 0, done.stderr
    assert "%!" not in done.stdout
    again = api.helm("upgrade", "x", str(CHARTS / chart), "-f", values)
    assert again.returncode == 0, again.stderr
    assert api.helm("uninstall", "x").returncode == 0


def test_the_manifests_hold_for_two_releases_side_by_side(api: Api) -> None:
    values = str(CHARTS / "qdrant/ci/default-values.yaml")
    for release in ("one", "two"):
        assert api.helm("install", release, str(CHARTS / "qdrant"), "-f", values).returncode == 0
    for release in ("one", "two"):
        assert api.helm("uninstall", release).returncode == 0
