"""What an engine tells of itself and of what is on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Container:
    """A container on the engine; ``state`` is the engine's: created, running, exited and others.

    ``is_carrier`` is set for one that only brings config files into their volume.
    """

    id: str
    name: str
    state: str
    is_carrier: bool = False


@dataclass(frozen=True)
class Network:
    """A network on the engine."""

    id: str
    name: str


@dataclass(frozen=True)
class Capacity:
    """What an engine has: processors, memory in bytes, and whether it holds containers to a limit of memory."""

    cpus: int
    memory: int
    limits_memory: bool = True
