"""Jobs of a remembered cluster: what their pods say, how they end, and what ends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

# What a service mesh puts beside a container, which runs for as long as the pod is there.
MESH = {"name": "a-mesh", "state": {"running": {}}}


@dataclass
class Script:
    """What a Job's pod does: waits, says its lines, ends.

    ``cuts`` are the lines after which the connection of whoever reads breaks, once each. One that ``hangs`` runs until
    the Job is removed, and says its ``farewell`` then. For ``blinks`` questions after the first the API is away.
    """

    lines: tuple[str, ...] = ()
    exit_code: int = 0
    waits: str = ""
    cuts: tuple[int, ...] = ()
    hangs: bool = False
    farewell: str = "cleaned up"
    vanishes: bool = False
    blinks: int = 0


@dataclass
class JobPod:
    """The pod of a Job."""

    manifest: dict[str, Any]
    script: Script
    asked: int = 0
    cut: set[int] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)
    removed: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return f"{self.manifest['metadata']['name']}-x"

    @property
    def command(self) -> list[str]:
        command: list[str] = self.manifest["spec"]["template"]["spec"]["containers"][0]["command"]
        return command

    def view(self) -> dict[str, Any]:
        """The pod as the API shows it; it waits for two looks where it waits at all."""
        self.asked += 1
        state: dict[str, Any] = {"running": {}}
        if self.script.waits and self.asked <= 2:
            state = {"waiting": {"reason": self.script.waits, "message": "as told"}}
        elif self.ended.is_set():
            state = {"terminated": {"exitCode": self.script.exit_code}}
        (container,) = self.manifest["spec"]["template"]["spec"]["containers"]
        status = {
            "name": container["name"],
            "ready": False,
            "image": "x",
            "imageID": "",
            "restartCount": 0,
            "state": state,
        }
        labels = {"job-name": self.manifest["metadata"]["name"]}
        return {
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"containers": []},
            "status": {"phase": "Running", "conditions": [], "containerStatuses": [{**status, **MESH}, status]},
        }

    def log(self) -> Iterator[bytes]:
        """What it has said from the beginning, then what it says until it ends or the connection breaks."""
        for number, line in enumerate(self.script.lines, start=1):
            yield f"{line}\n".encode()
            if number in self.script.cuts and number not in self.cut:
                self.cut.add(number)
                return
        if self.script.hangs and self.removed.wait(30):
            yield f"{self.script.farewell}\n".encode()
        self.ended.set()


class JobController:
    """Makes the pod of each Job, by ``script_of`` what it is to run."""

    def __init__(self) -> None:
        self.pods: dict[str, JobPod] = {}
        self.history: list[JobPod] = []
        self.script_of: Callable[[list[str]], Script] = lambda command: Script()
        self.cronjob_status: dict[str, Any] = {}

    def create(self, manifest: dict[str, Any]) -> None:
        pod = JobPod(manifest, Script())
        pod.script = self.script_of(pod.command)
        self.history.append(pod)
        self.pods[manifest["metadata"]["name"]] = pod

    def delete(self, name: str) -> bool:
        pod = self.pods.get(name)
        if pod is None:
            return False
        pod.removed.set()

        def remove() -> None:
            if pod.script.hangs:
                pod.ended.wait(10)
                time.sleep(0.2)
            self.pods.pop(name, None)

        threading.Thread(target=remove, daemon=True).start()
        return True

    def is_away(self) -> bool:
        """Whether the API does not answer this question."""
        away = next((pod for pod in self.pods.values() if pod.script.blinks and pod.asked), None)
        if away:
            away.script.blinks -= 1
        return away is not None

    def views(self) -> list[dict[str, Any]]:
        there = [pod for pod in self.pods.values() if not (pod.script.vanishes and pod.asked)]
        return [pod.view() for pod in there]
