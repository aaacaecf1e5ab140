"""The checker of Restricted: each thing that it forbids is seen, alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.charts.restricted import violations

GOOD: dict[str, Any] = {
    "spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "c",
                "ports": [{"containerPort": 1}],
                "livenessProbe": {"httpGet": {"path": "/", "port": 1}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }
}


def changed(path: str, value: object) -> dict[str, Any]:
    pod = copy.deepcopy(GOOD)
    at: Any = pod["spec"]
    *above, last = path.split(".")
    for key in above:
        at = at[int(key)] if key.isdigit() else at.setdefault(key, {})
    at[last] = value
    return pod


def test_a_pod_that_keeps_to_the_standard_has_no_violation() -> None:
    assert violations(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("hostNetwork", True),
        ("hostPID", True),
        ("hostIPC", True),
        ("volumes", [{"name": "v", "hostPath": {"path": "/"}}]),
        ("volumes", [{"name": "v", "nfs": {"server": "s"}}]),
        ("securityContext.sysctls", [{"name": "vm.max_map_count", "value": "262144"}]),
        ("securityContext.runAsNonRoot", False),
        ("securityContext.runAsUser", 0),
        ("securityContext.seccompProfile", {"type": "Unconfined"}),
        ("securityContext.seccompProfile", None),
        ("securityContext.appArmorProfile", {"type": "Unconfined"}),
        ("securityContext.seLinuxOptions", {"type": "spc_t"}),
        ("securityContext.seLinuxOptions", {"user": "root"}),
        ("containers.0.securityContext", {}),
        ("containers.0.securityContext.privileged", True),
        ("containers.0.securityContext.allowPrivilegeEscalation", True),
        ("containers.0.securityContext.capabilities", {"drop": ["NET_RAW"]}),
        ("containers.0.securityContext.capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        ("containers.0.securityContext.runAsNonRoot", False),
        ("containers.0.securityContext.runAsUser", 0),
        ("containers.0.securityContext.procMount", "Unmasked"),
        ("containers.0.ports", [{"containerPort": 1, "hostPort": 1}]),
        ("containers.0.livenessProbe", {"tcpSocket": {"port": 1, "host": "elsewhere"}}),
        ("containers.0.lifecycle", {"preStop": {"httpGet": {"port": 1, "host": "elsewhere"}}}),
        ("initContainers", [{"name": "first"}]),
        ("ephemeralContainers", [{"name": "debug", "securityContext": {"privileged": True}}]),
    ],
)
def test_what_the_standard_forbids_is_seen(path: str, value: object) -> None:
    assert violations(changed(path, value))


def test_a_capability_that_the_standard_allows_may_be_added() -> None:
    allowed = {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}
    assert violations(changed("containers.0.securityContext.capabilities", allowed)) == []
