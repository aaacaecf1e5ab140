"""A kubernetes provider of our own, served to the real Pulumi engine over PULUMI_DEBUG_PROVIDERS; for tests alone.

Objects land in a remembered cluster. A chart is a component of the provider: stand-ins make what these tests look at of
it, and they are registered as children.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2, resource_pb2, resource_pb2_grpc

from tests.containers.wire import UNKNOWN, from_struct, to_plain, to_struct
from tests.kubernetes.store import Refused, Store, key_of
from tests.provider import Provider

CHART = "kubernetes:helm.sh/v4:Chart"
RESOURCE = "5cf8f73096256a8f31e491e813e4eb8e"
SIGNATURE = "4dabf18193072939515e22adb298388d"
# What Kubernetes changes of a StatefulSet that runs; any other change replaces it.
IN_PLACE = {"replicas", "template", "updateStrategy", "minReadySeconds", "persistentVolumeClaimRetentionPolicy"}


class KubernetesProvider(Provider):
    """What is kubernetes' own of the protocol."""

    name, version = "kubernetes", "4.34.2"

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.charts: dict[str, dict[str, Any]] = {}

    def Diff(self, request: Any, context: Any) -> Any:
        olds, news = to_plain(from_struct(request.old_inputs)), to_plain(from_struct(request.news))
        changed = [key for key in sorted(news.keys() | olds.keys()) if olds.get(key) != news.get(key)]
        replaces = []
        if news.get("kind") == "StatefulSet" and "spec" in changed:
            before, after = olds["spec"], news["spec"]
            moved = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
            replaces = ["spec"] if moved - IN_PLACE else []
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=changed,
            replaces=replaces,
            deleteBeforeReplace=True,
        )

    def Create(self, request: Any, context: Any) -> Any:
        inputs = from_struct(request.properties)
        if not request.preview:
            self.requests.append((request.type, inputs))
            try:
                self.store.create(to_plain(inputs))
            except Refused as refused:
                context.abort(grpc.StatusCode.UNKNOWN, str(refused))
        _, namespace, name = key_of(to_plain(inputs))
        return provider_pb2.CreateResponse(id=f"{namespace}/{name}", properties=request.properties)

    def Read(self, request: Any, context: Any) -> Any:
        known = from_struct(request.properties)
        if self.store.get(*key_of(to_plain(known))) is None:
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    def Update(self, request: Any, context: Any) -> Any:
        news = to_plain(from_struct(request.news))
        try:
            # As the real one, which asks the API server in a preview too.
            self.store.refuse_unbound(news)
        except Refused as refused:
            context.abort(grpc.StatusCode.UNKNOWN, str(refused))
        if not request.preview:
            self.store.update(news)
        return provider_pb2.UpdateResponse(properties=request.news)

    def Delete(self, request: Any, context: Any) -> Any:
        self.store.delete(key_of(to_plain(from_struct(request.properties))))
        return empty_pb2.Empty()

    def Construct(self, request: Any, context: Any) -> Any:
        assert request.type == CHART
        inputs = to_plain(from_struct(request.inputs))
        self.charts[request.name] = inputs
        with grpc.insecure_channel(request.monitorEndpoint) as channel:
            monitor = resource_pb2_grpc.ResourceMonitorStub(channel)
            component = monitor.RegisterResource(
                resource_pb2.RegisterResourceRequest(
                    type=CHART,
                    name=request.name,
                    parent=request.parent,
                    dependencies=request.dependencies,
                    providers=dict(request.providers),
                    object=to_struct({}),
                    acceptSecrets=True,
                    acceptResources=True,
                )
            )
            # As the real one: what is not known yet makes a chart without children.
            manifests = [] if UNKNOWN in json.dumps(inputs) else list(stand_ins(inputs))
            children = []
            for manifest in manifests:
                _, namespace, name = key_of(manifest)
                made = monitor.RegisterResource(
                    resource_pb2.RegisterResourceRequest(
                        type=f"kubernetes:{manifest['apiVersion'] if '/' in manifest['apiVersion'] else 'core/v1'}"
                        f":{manifest['kind']}",
                        name=f"{request.name}:{namespace}/{name}",
                        parent=component.urn,
                        custom=True,
                        object=to_struct(manifest),
                        provider=dict(request.providers)["kubernetes"],
                        acceptSecrets=True,
                        acceptResources=True,
                    )
                )
                children.append(made.urn)
            state = {"resources": [{SIGNATURE: RESOURCE, "urn": urn, "id": ""} for urn in children]}
            monitor.RegisterResourceOutputs(
                resource_pb2.RegisterResourceOutputsRequest(urn=component.urn, outputs=to_struct(state))
            )
        return provider_pb2.ConstructResponse(
            urn=component.urn,
            state=to_struct(state),
            stateDependencies={"resources": provider_pb2.ConstructResponse.PropertyDependencies(urns=children)},
        )


def stand_ins(inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a chart makes, as far as these tests look at it."""
    values = inputs["values"]
    match inputs["name"]:
        case "qdrant":
            auth, keys = values["auth"], {"QDRANT__SERVICE__API_KEY": {"key": "api-key"}}
            if auth["altApiKeyKey"]:
                keys["QDRANT__SERVICE__ALT_API_KEY"] = {"key": auth["altApiKeyKey"], "optional": True}
            env = {name: {"name": auth["existingSecret"], **about} for name, about in keys.items()}
            yield workload(inputs, "qdrant", "node", values, env)
        case "redis":
            secret = {"REDIS_PASSWORD": {"name": values["auth"]["existingSecret"], "key": "redis-password"}}
            yield workload(
                inputs, "redis", "server", {**values, "persistence": {"data": values["persistence"]}}, secret
            )
        case "monitoring":
            for component in ("prometheus", "alertmanager", "grafana", "plinth-exporter"):
                words = component.split("-")
                about = values["".join((words[0], *(word.title() for word in words[1:])))]
                if about.get("enabled", True):
                    claims = {"data": about["persistence"]} if "persistence" in about else {}
                    part = {**about, "persistence": claims, "podAnnotations": values["secretMarks"]}
                    yield workload(inputs, f"monitoring-{component}", component, part, {})
        case "backup":
            yield from backups(inputs, values)


def backups(inputs: dict[str, Any], values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for volume in ("work", "state", "repository"):
        size = values["persistence"].get(volume, {}).get("size", "16Mi" if volume == "state" else "")
        if size:
            yield {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": f"backup-{volume}", "namespace": inputs["namespace"]},
                "spec": {"resources": {"requests": {"storage": size}}},
            }
    for command, when in values["schedules"].items():
        yield {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": f"backup-{command}", "namespace": inputs["namespace"]},
            "spec": {
                "schedule": when,
                "image": values["image"],
                "marked": values["podAnnotations"],
                "jobTemplate": {"spec": {"template": job_pod(command)}},
            },
        }


def job_pod(command: str) -> dict[str, Any]:
    """The pod of a CronJob of the backups, as charts/backup writes its command."""
    argv = ["python3", "-m", "plinth.backup", "--config", "/etc/plinth/backup/config.yaml", command]
    return {"spec": {"restartPolicy": "Never", "containers": [{"name": "backup", "image": "x", "command": argv}]}}


def workload(
    inputs: dict[str, Any], name: str, component: str, values: dict[str, Any], env: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """A StatefulSet, or a Deployment where there is no volume."""
    labels = {
        "app.kubernetes.io/name": inputs["name"],
        "app.kubernetes.io/instance": inputs["name"],
        "app.kubernetes.io/component": component,
    }
    read = {key: values[key] for key in ("image", "config", "resources", "podAnnotations") if key in values}
    annotations = {"checksum": hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()}
    variables = [{"name": known, "valueFrom": {"secretKeyRef": where}} for known, where in env.items()]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet" if values["persistence"] else "Deployment",
        "metadata": {"name": name, "namespace": inputs["namespace"], "labels": labels},
        "spec": {
            "replicas": values.get("replicas", 1),
            "serviceName": f"{name}-headless",
            "selector": {"matchLabels": labels},
            "updateStrategy": {"rollingUpdate": {"partition": values.get("updateStrategy", {}).get("partition", 0)}},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {"containers": [{"name": component, "env": variables}]},
            },
            "volumeClaimTemplates": [
                {"metadata": {"name": volume}, "spec": {"resources": {"requests": {"storage": about["size"]}}}}
                for volume, about in values["persistence"].items()
            ],
        },
    }
