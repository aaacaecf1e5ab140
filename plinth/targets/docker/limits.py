"""Whether an engine can give what the containers of an environment ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from plinth.services import Service
from plinth.targets.docker.engine_api import STACK_LABEL, Daemon
from plinth.targets.docker.naming import node_names
from plinth.targets.docker.objects import Capacity

MIB = 1 << 20
# The settings that bound one service's memory; the tier bounds all others'.
MEMORY_KEYS = {
    "qdrant": "qdrant.memory_mib",
    "postgres": "postgres.memory_mib",
    "redis": "redis.maxmemory_mib",
    "neo4j": "neo4j.memory_mib",
    "gateway": "gateway.memory_mib",
    "gateway-worker": "gateway.memory_mib",
}
CPU_KEY = "qdrant.cpus"
# The kernel's numbers of the limits that are set, and the settings that they come from.
RLIMITS = {"6": ("docker.nproc", "processes"), "7": ("docker.nofile", "open files")}


def refusals(services: Sequence[Service], capacity: Capacity) -> Iterator[str]:
    """Yield what no container of this engine can have, one sentence each with the next step."""
    greedy = [service for service in services if service.limits.cpus > capacity.cpus]
    if greedy:
        most = max(service.limits.cpus for service in greedy)
        yield (
            f"The Docker engine has {capacity.cpus} processor(s), and a container may have no more; "
            f"{', '.join(service.name for service in greedy)} would get {most:g}. Set plinth:{CPU_KEY} to "
            f"{capacity.cpus} or less, or a smaller plinth:tier."
        )
    memory = capacity.memory // MIB
    for service in services:
        if service.limits.memory_mib > memory:
            key = MEMORY_KEYS.get(service.name, "tier")
            yield (
                f"The Docker engine's machine has {memory} MiB of memory, and {service.name} would get "
                f"{service.limits.memory_mib}. Set plinth:{key} lower."
            )


def warnings(services: Sequence[Service], capacity: Capacity) -> Iterator[str]:
    """What holds on this engine other than one expects, a sentence each; the containers run all the same."""
    if not capacity.limits_memory:
        yield (
            "the Docker engine limits no container's memory or processors: it runs without cgroups, as a rootless "
            "engine does without cgroup v2. One container can take all of the machine's memory. Give the engine cgroup "
            "v2 with delegated controllers."
        )
    elif warning := overcommitted(services, capacity):
        yield warning


def overcommitted(services: Sequence[Service], capacity: Capacity) -> str | None:
    """A warning where all the containers together may use more memory than there is."""
    total = sum(service.limits.memory_mib * len(node_names(service)) for service in services)
    memory = capacity.memory // MIB
    if total <= memory:
        return None
    return (
        f"the containers may use {total} MiB of memory together, and the engine's machine has {memory}: when they do, "
        "the kernel ends some of them. Lower memory_mib of the stores, or plinth:tier."
    )


def refused_limits(daemon: Daemon, stack: str, image: str, limits: Mapping[str, int]) -> str | None:
    """Try the limits that no engine tells of, with a container that ends at once; a sentence when refused."""
    reason = daemon.refused_start(f"plinth-{stack}-limits", image, limits, {STACK_LABEL: stack})
    if not reason:
        return None
    number = re.search(r"rlimit type (\d+)", reason)
    key, thing = RLIMITS.get(number.group(1) if number else "", RLIMITS["7"])
    return (
        f"The Docker engine cannot give a container {limits['nofile' if key.endswith('nofile') else 'nproc']} {thing} "
        f"({' '.join(reason.split())}). Set plinth:{key} lower, such as {8192 if thing == 'open files' else 1024}, or "
        "raise the limit of the engine's own service."
    )
