"""Pod Security Standard `restricted`, as the admission controller of Kubernetes 1.36 judges a pod.

Written from the standard; `violations` is a function from a pod to sentences.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
Spec = dict[str, Any]


def violations(pod: Spec) -> list[str]:
    """What a pod with this `spec` does that Restricted forbids."""
    spec: Spec = pod["spec"]
    return [*_of_pod(spec), *(found for container in _containers(spec) for found in _of_container(container, spec))]


def _containers(spec: Spec) -> list[Spec]:
    return [c for kind in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(kind) or []]


def _of_pod(spec: Spec) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{key} is set"
    for volume in spec.get("volumes") or []:
        for kind in sorted(set(volume) - {"name"} - VOLUMES):
            yield f"volume {volume['name']} is a {kind}"
    context = spec.get("securityContext") or {}
    for sysctl in context.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']} is not a safe one"
    yield from _shared("pod", context)


def _of_container(container: Spec, spec: Spec) -> Iterator[str]:
    name, context = container["name"], container.get("securityContext") or {}
    above = spec.get("securityContext") or {}
    if context.get("privileged"):
        yield f"{name} is privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may gain privileges"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield f"{name} does not drop ALL capabilities"
    for capability in sorted(set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}):
        yield f"{name} adds {capability}"
    if context.get("runAsNonRoot", above.get("runAsNonRoot")) is not True:
        yield f"{name} may run as root"
    if (context.get("seccompProfile") or above.get("seccompProfile") or {}).get("type") not in (
        "RuntimeDefault",
        "Localhost",
    ):
        yield f"{name} has no seccomp profile"
    if context.get("procMount", "Default") != "Default":
        yield f"{name} has procMount {context['procMount']}"
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield f"{name} takes the host's port {port['hostPort']}"
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        yield from _host(f"{name}'s {kind}", container.get(kind) or {})
    for hook, what in (container.get("lifecycle") or {}).items():
        yield from _host(f"{name}'s {hook}", what)
    yield from _shared(name, context)


def _host(what: str, asked: Spec) -> Iterator[str]:
    for kind in ("httpGet", "tcpSocket"):
        if (asked.get(kind) or {}).get("host"):
            yield f"{what} names a host"


def _shared(name: str, context: Spec) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield f"{name} runs as user 0"
    if (context.get("seccompProfile") or {}).get("type") == "Unconfined":
        yield f"{name} has no seccomp filter"
    if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
        yield f"{name} has no AppArmor profile"
    options = context.get("seLinuxOptions") or {}
    if options.get("type", "") not in SELINUX or options.get("user") or options.get("role"):
        yield f"{name} sets SELinux options"
