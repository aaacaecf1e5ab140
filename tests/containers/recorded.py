"""An engine that remembers what it was told and refuses on demand."""

from __future__ import annotations

import threading
from typing import Any

from tests.containers.provider import Refused


class Recorded:
    """Things by id, and every call in its order: verb, kind, name.

    ``refuse_create`` is the number of the create to refuse, counted from the next one as 1.
    """

    def __init__(self) -> None:
        self.things: dict[str, tuple[str, dict[str, Any]]] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.refuse_create: int | None = None
        self._lock = threading.Lock()
        self._made = 0

    def create(self, kind: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        with self._lock:
            if self.refuse_create is not None:
                self.refuse_create -= 1
                if self.refuse_create == 0:
                    raise Refused(f"the engine refused to make the {kind} {inputs['name']}")
            self._made += 1
            id_ = f"{kind}-{self._made}"
            # As the engine does: a volume of the same name is the same volume, a container's name is its own.
            if kind == "container" and inputs["name"] in self.names("container"):
                raise Refused(f"Conflict. The container name {inputs['name']} is already in use")
            self.things[id_] = (kind, inputs)
            self.calls.append(("create", kind, inputs["name"]))
        return id_, {"imageId": f"sha256:{inputs['name']}"} if kind == "remoteImage" else {}

    def read(self, kind: str, id_: str, known: dict[str, Any]) -> dict[str, Any] | None:
        with self._lock:
            return {} if id_ in self.things else None

    def update(self, kind: str, id_: str, inputs: dict[str, Any]) -> None:
        with self._lock:
            self.things[id_] = (kind, inputs)
            self.calls.append(("update", kind, inputs["name"]))

    def delete(self, kind: str, id_: str, known: dict[str, Any]) -> None:
        with self._lock:
            _, inputs = self.things.pop(id_, (kind, known))
            self.calls.append(("delete", kind, inputs["name"]))

    def names(self, kind: str) -> list[str]:
        return [inputs["name"] for found, inputs in self.things.values() if found == kind]

    def lose(self, kind: str, name: str) -> None:
        """Something outside removed a thing."""
        self.things = {
            id_: (found, inputs)
            for id_, (found, inputs) in self.things.items()
            if (found, inputs["name"]) != (kind, name)
        }

    def since(self, moment: int) -> list[tuple[str, str, str]]:
        return self.calls[moment:]
