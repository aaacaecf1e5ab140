"""What a change of manifests cannot do in place: a function from two renderings to sentences.

Kubernetes refuses a change of these fields: the object would have to be deleted and made again.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
# Of a StatefulSet everything is immutable but this.
CHANGEABLE = {
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
}


def immutable_changes(before: list[Object], after: list[Object]) -> list[str]:
    """Changes of fields that Kubernetes refuses to change, as `Kind/name: field`."""
    old = {_key(found): found for found in before}
    return [
        f"{_key(found)}: {field}"
        for found in after
        if _key(found) in old
        for field in _changed(old[_key(found)].get("spec", {}), found.get("spec", {}), found["kind"])
    ]


def removed(before: list[Object], after: list[Object]) -> list[str]:
    """Objects with data that an upgrade would take away."""
    kept = {_key(found) for found in after}
    return [_key(o) for o in before if o["kind"] in {"StatefulSet", "PersistentVolumeClaim"} and _key(o) not in kept]


def _key(found: Object) -> str:
    return f"{found['kind']}/{found['metadata']['name']}"


def _changed(before: Object, after: Object, kind: str) -> list[str]:
    differing = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    match kind:
        case "StatefulSet":
            return [key for key in differing if key not in CHANGEABLE]
        case "Deployment" | "DaemonSet":
            return [key for key in differing if key == "selector"]
        case "Service":
            return [key for key in differing if key == "clusterIP"]
        case "Job":
            return [key for key in differing if key in {"template", "selector", "completionMode"}]
        case "PersistentVolumeClaim":
            return [key for key in differing if key != "resources"]
        case _:
            return []
