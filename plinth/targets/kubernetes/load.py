"""The Job of a run of the load gate; pure.

It is no chart's: it exists for one run, and keeps to what the charts ask of the namespace's pods. Restricted, bounded,
with the label of those that Qdrant's network policy lets in.
"""

from __future__ import annotations

import secrets
from typing import Any

from plinth.kubernetes.jobs import BY_HAND, REMOVED_AFTER_S
from plinth.load.remote_run import VARIABLE, Job
from plinth.programs.spec import Container, Limits
from plinth.services import qdrant as qd
from plinth.settings import Settings
from plinth.targets.kubernetes.naming import object_name
from plinth.targets.kubernetes.store_values import KEYS, SCRATCH_REQUEST, TLS

NAME = "load"
SECRETS = "/etc/plinth-secrets"
API_KEY, CA = "api-key", "ca.crt"
STOP_GRACE_S = 60
# Of each worker's core, what the cluster has to have free: one that gets less in the end is late, and says so.
REQUESTED_SHARE = 0.5
SCRATCH = "256Mi"


def job_of(settings: Settings, image: str, job: Job, limits: Limits) -> dict[str, Any]:
    """A Job of one pod with the workers in it, tried once; what is left of it the cluster removes."""
    uid, _, gid = Container().user.partition(":")
    labels = {
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/part-of": "plinth",
        f"{object_name('qdrant')}-client": "true",
    }
    mounted = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - inside the container
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": SCRATCH}}]
    if sources := _sources(settings):
        mounted.append({"name": "secrets", "mountPath": SECRETS, "readOnly": True})  # type: ignore[dict-item]
        volumes.append({"name": "secrets", "projected": {"defaultMode": 0o440, "sources": sources}})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{NAME}-{secrets.token_hex(3)}", "labels": labels, "annotations": dict(BY_HAND)},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": REMOVED_AFTER_S,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": STOP_GRACE_S,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": int(uid),
                        "runAsGroup": int(gid),
                        "fsGroup": int(gid),
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": NAME,
                            "image": image,
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["python3", "-m", "plinth.load"],
                            "env": [{"name": VARIABLE, "value": job.text()}],
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "resources": _resources(limits),
                            "volumeMounts": mounted,
                        }
                    ],
                    "volumes": volumes,
                },
            },
        },
    }


def _sources(settings: Settings) -> list[dict[str, Any]]:
    """The Secrets that the charts have anyway; none is made for a run."""
    wanted = settings.qdrant
    held = {KEYS: API_KEY if wanted.auth else None, TLS: CA if has_ca(settings) else None}
    return [{"secret": {"name": name, "items": [{"key": key, "path": key}]}} for name, key in held.items() if key]


def has_ca(settings: Settings) -> bool:
    """Whether the environment has the certificate of who signed Qdrant's."""
    return qd.tls_ca(settings.qdrant.tls) is not None


def _resources(limits: Limits) -> dict[str, dict[str, str]]:
    workers = limits.cpus - 1
    memory = {"memory": f"{limits.memory_mib}Mi"}
    return {
        "requests": {"cpu": f"{REQUESTED_SHARE * workers:g}", **memory, "ephemeral-storage": SCRATCH_REQUEST},
        "limits": {"cpu": f"{limits.cpus:g}", **memory, "ephemeral-storage": SCRATCH},
    }
