"""A rolling update of a StatefulSet, pod by pod: the next step, from the observed state.

The StatefulSet's partition keeps every pod at its old revision; lowering it by one updates one pod. Pure;
:mod:`plinth.kubernetes.rolling_update` executes the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Rolled:
    """A StatefulSet that is updated pod by pod: its cluster's address, and its pods' labels."""

    kubeconfig: str | None
    context: str | None
    namespace: str
    workload: str
    selector: str


@dataclass(frozen=True)
class Pod:
    """A pod of a StatefulSet: the revision it runs, whether it is ready, and why it is not."""

    revision: str
    ready: bool
    reason: str = ""


@dataclass(frozen=True)
class Workload:
    """A StatefulSet's state. ``observed`` is whether its controller has seen its last change."""

    name: str
    replicas: int
    partition: int
    revision: str
    observed: bool
    pods: Mapping[int, Pod]

    @property
    def outdated(self) -> list[int]:
        """The numbers of the pods that run another revision than the desired one."""
        return sorted(number for number, pod in self.pods.items() if pod.revision != self.revision)


@dataclass(frozen=True)
class Wait:
    """No pod may be updated now, and why."""

    reason: str


@dataclass(frozen=True)
class Lower:
    """Update the pod of this number to the new revision."""

    partition: int


@dataclass(frozen=True)
class Done:
    """Every pod runs the new revision and is ready."""


def next_step(seen: Workload, lacks: str | None) -> Wait | Lower | Done:
    """Return the next step; ``lacks`` is why the nodes' own cluster is not ready, None when it is.

    One pod at a time, from the highest number down, as the controller does. An outdated pod that is down may be updated
    whatever the state of the rest: it serves nothing, and the new revision may repair it.
    """
    if not seen.observed:
        return Wait(f"the controller of {seen.name} has not seen the change yet")
    if len(seen.pods) < seen.replicas:
        return Wait(f"{seen.name} has {len(seen.pods)} of {seen.replicas} pods")
    outdated = seen.outdated
    if outdated and outdated[-1] >= seen.partition:
        return Wait(f"pod {seen.name}-{outdated[-1]} is being replaced")
    down = [number for number, pod in sorted(seen.pods.items()) if not pod.ready]
    if outdated and outdated[-1] in down:
        return Lower(outdated[-1])
    if down:
        return Wait(f"pod {seen.name}-{down[0]} is not ready: {seen.pods[down[0]].reason}")
    if lacks is not None:
        return Wait(lacks)
    return Lower(outdated[-1]) if outdated else Done()
