"""A cluster that remembers: objects by kind, namespace and name, and the StatefulSet controller's part of the work."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Callable
from typing import Any

from tests.kubernetes.jobs import JobController

Key = tuple[str, str, str]
# What the pod of a Deployment is called after it.
PART = "x"


class Refused(Exception):
    """The API server's refusal, in its own words."""


class Store:
    """``calls`` are verb, kind and name in their order; ``refuse_create`` counts down to the create that is refused.

    ``on_start`` hears of each pod that starts, ``on_put`` of each object that is made or changed.
    """

    def __init__(self) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.refuse_create: int | None = None
        self.expandable = True
        self.denied: set[str] = set()
        # By pod: the variables that its template asks for, and what they were when it started.
        self.wanted: dict[str, list[dict[str, Any]]] = {}
        self.environment: dict[str, dict[str, str]] = {}
        self.not_ready: dict[str, str] = {}
        # Claims that wait for their first pod, and how often pods are still listed after their end was asked for.
        self.unbound: set[str] = set()
        self.lingers = 0
        self._ending: dict[Key, int] = {}
        self.on_start: Callable[[str], None] = lambda name: None
        self.on_put: Callable[[str, str], None] = lambda kind, name: None
        self.jobs = JobController()
        self.lock = threading.RLock()

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        return self.objects.get((kind, namespace, name))

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        return {name: found for (known, _, name), found in sorted(self.objects.items()) if known == kind}

    def create(self, manifest: dict[str, Any]) -> None:
        kind, _, name = key = key_of(manifest)
        with self.lock:
            if self.refuse_create is not None:
                self.refuse_create -= 1
                if self.refuse_create == 0:
                    raise Refused(f"the API server refused to make the {kind} {name}")
            self.calls.append(("create", kind, name))
            self._put(key, manifest)

    def update(self, manifest: dict[str, Any]) -> None:
        with self.lock:
            self.refuse_unbound(manifest)
            self.calls.append(("update", *key_of(manifest)[::2]))
            self._put(key_of(manifest), manifest)

    def delete(self, key: Key, *, orphan: bool = False) -> None:
        with self.lock:
            found = self.objects.pop(key, None)
            if found is None:
                return
            self.calls.append(("orphan" if orphan else "delete", key[0], key[2]))
            if key[0] in ("StatefulSet", "Deployment") and not orphan:
                for name in [name for name in self.of("Pod") if owned(name, key[2])]:
                    if self.lingers:
                        self._ending["Pod", key[1], name] = self.lingers
                    else:
                        del self.objects["Pod", key[1], name]

    def list_pods(self) -> dict[str, dict[str, Any]]:
        """Every pod, those included that end and are listed for a while yet."""
        with self.lock:
            pods = self.of("Pod")
            for key in list(self._ending):
                self._ending[key] -= 1
                if not self._ending[key]:
                    del self._ending[key]
                    self.objects.pop(key, None)
            return pods

    def refuse_unbound(self, manifest: dict[str, Any]) -> None:
        """What the API server says to a change of a claim that no volume is bound to."""
        kind, _, name = key = key_of(manifest)
        before = self.objects.get(key)
        waits = kind == "PersistentVolumeClaim" and name in self.unbound and before is not None
        if waits and before["spec"]["resources"] != manifest["spec"]["resources"]:
            raise Refused(
                f'PersistentVolumeClaim "{name}" is invalid: spec: Forbidden: spec is immutable after creation '
                "except resources.requests and volumeAttributesClassName for bound claims"
            )

    def set_partition(self, namespace: str, name: str, partition: int) -> None:
        with self.lock:
            found = self.objects["StatefulSet", namespace, name]
            found["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = partition
            self.calls.append(("partition", str(partition), name))
            self._control(found)

    def expand(self, namespace: str, name: str, size: str) -> None:
        with self.lock:
            found = self.objects["PersistentVolumeClaim", namespace, name]
            self.refuse_unbound(
                {**found, "kind": "PersistentVolumeClaim", "spec": {"resources": {"requests": {"storage": size}}}}
            )
            found["spec"]["resources"]["requests"]["storage"] = size
            found["status"]["capacity"]["storage"] = size
            self.calls.append(("expand", "PersistentVolumeClaim", name))

    def _put(self, key: Key, manifest: dict[str, Any]) -> None:
        kept = copy.deepcopy(manifest)
        before = self.objects.get(key, {})
        kept["metadata"].setdefault("namespace", key[1])
        kept["metadata"]["generation"] = before.get("metadata", {}).get("generation", 0) + 1
        kept["status"] = before.get("status", {})
        self.objects[key] = kept
        if key[0] == "StatefulSet":
            self._control(kept)
        if key[0] == "Deployment":
            self._start(kept, f"{key[2]}-{PART}", "")
        if key[0] == "PersistentVolumeClaim":
            size = kept["spec"]["resources"]["requests"]["storage"]
            kept["spec"].setdefault("storageClassName", "fast")
            kept["status"] = {"phase": "Bound", "capacity": {"storage": size}}
        self.on_put(key[0], key[2])

    def _control(self, workload: dict[str, Any]) -> None:
        """What the controller does: claims and pods that are missing, and pods from the partition on anew."""
        spec, status = workload["spec"], workload["status"]
        namespace, name = workload["metadata"]["namespace"], workload["metadata"]["name"]
        revision = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:10]
        status["observedGeneration"] = workload["metadata"]["generation"]
        status["updateRevision"], status["replicas"] = revision, spec["replicas"]
        status.setdefault("currentRevision", revision)
        rolling = spec.get("updateStrategy", {}).get("rollingUpdate", {})
        replicas, partition = spec["replicas"], rolling.get("partition", 0)
        for number in reversed(range(replicas)):
            pod = self.get("Pod", namespace, f"{name}-{number}")
            if pod is None:
                self._start(workload, f"{name}-{number}", status["currentRevision"] if number < partition else revision)
            elif number >= partition and pod["metadata"]["labels"]["controller-revision-hash"] != revision:
                self.calls.append(("restart", "Pod", f"{name}-{number}"))
                self._start(workload, f"{name}-{number}", revision)
        revisions = {
            self.objects["Pod", namespace, f"{name}-{number}"]["metadata"]["labels"]["controller-revision-hash"]
            for number in range(replicas)
        }
        if revisions == {revision}:
            status["currentRevision"] = revision
        for extra in [pod for pod in self.of("Pod") if owned(pod, name) and int(pod.rpartition("-")[2]) >= replicas]:
            del self.objects["Pod", namespace, extra]

    def _start(self, workload: dict[str, Any], pod: str, revision: str) -> None:
        namespace = workload["metadata"]["namespace"]
        for template in workload["spec"].get("volumeClaimTemplates", []):
            key = ("PersistentVolumeClaim", namespace, f"{template['metadata']['name']}-{pod}")
            if key not in self.objects:
                size = template["spec"]["resources"]["requests"]["storage"]
                self.objects[key] = {
                    "metadata": {"name": key[2], "namespace": namespace},
                    "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": size}}},
                    "status": {"phase": "Bound", "capacity": {"storage": size}},
                }
        labels = {
            **workload["spec"]["template"]["metadata"].get("labels", {}),
            "controller-revision-hash": revision,
            "statefulset.kubernetes.io/pod-name": pod,
        }
        self.objects["Pod", namespace, pod] = {
            "metadata": {"name": pod, "namespace": namespace, "labels": labels},
            "spec": {"containers": []},
            "status": {"phase": "Running"},
        }
        self.wanted[pod] = [entry for each in containers(workload) for entry in each.get("env", [])]
        self.environment[pod] = self.resolved(pod)
        self.on_start(pod)

    def resolved(self, pod: str) -> dict[str, str]:
        """The environment that a pod would have if it started now; one whose secret lacks a key does not start."""
        found = {}
        for entry in self.wanted[pod]:
            about = entry["valueFrom"]["secretKeyRef"]
            held = self.of("Secret")[about["name"]]["stringData"]
            if about["key"] in held:
                found[entry["name"]] = held[about["key"]]
            elif not about.get("optional"):
                raise Refused(f"{pod} does not start: the Secret {about['name']} has no {about['key']}")
        return found

    def pod_view(self, pod: dict[str, Any]) -> dict[str, Any]:
        """A pod with its conditions as they are now."""
        why = self.not_ready.get(pod["metadata"]["name"])
        ready = {"type": "Ready", "status": "False" if why else "True"}
        waiting = {"name": "main", "ready": False, "image": "x", "imageID": "", "restartCount": 0}
        status = {"phase": "Running", "conditions": [ready]}
        if why:
            status["containerStatuses"] = [{**waiting, "state": {"waiting": {"reason": why, "message": "as told"}}}]
        return {**pod, "status": status}


def key_of(manifest: dict[str, Any]) -> Key:
    return manifest["kind"], manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]


def containers(workload: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workload["spec"]["template"]["spec"]["containers"]
    return found


def owned(pod: str, workload: str) -> bool:
    head, _, number = pod.rpartition("-")
    return head == workload and (number.isdigit() or number == PART)
