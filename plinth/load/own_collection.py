"""The load gate's own collection: marked while a run uses it and dropped after it, as is what killed runs left."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from plinth.load.locust_runner import SLACK_S, WORKERS_WAIT_S, Schedule
from plinth.qdrant.client import Qdrant, QdrantError, collection_path
from plinth.qdrant.load_mark import MARK, PREFIX, is_load_gates, metadata_of
from plinth.qdrant.spec import CollectionSpec
from plinth.system.http_client import is_path_part
from plinth.system.versions import numbers

# Filling the largest set, and the index.
PREPARATION_S = 3600.0
NEW = "_new_"
# An older server keeps no metadata, so that nobody can tell there what a killed run has left.
METADATA_SINCE = (1, 16)
# The start of a process is told less exactly than that.
SAME_MS = 1000
Say = Callable[[str], None]


@dataclass(frozen=True)
class Lease:
    """Who uses a collection of the gate's since ``started`` and until when at most, in milliseconds since 1970.

    ``space`` is where ``pid`` means something: this boot of this machine and its processes' name space.
    """

    host: str
    space: str
    pid: int
    started: int
    until: int

    @classmethod
    def own(cls, seconds: float) -> Self:
        """This process's."""
        process = psutil.Process()
        return cls(socket.gethostname(), _space(), process.pid, _started(process), int(1000 * (time.time() + seconds)))

    @classmethod
    def of(cls, metadata: Any) -> Self | None:
        """What a mark says; None for one that says nothing of a run."""
        try:
            mark = metadata[MARK]
            return cls(
                str(mark["host"]), str(mark["space"]), int(mark["pid"]), int(mark["started"]), int(mark["until"])
            )
        except (TypeError, KeyError, ValueError):
            return None

    def is_held(self) -> bool:
        """Whether its run goes on: its process lives, or, where that cannot be seen from here, its time is not over."""
        if self.space != _space():
            return 1000 * time.time() < self.until
        try:
            return abs(_started(psutil.Process(self.pid)) - self.started) < SAME_MS
        except psutil.Error:
            return False


def is_kept(metadata: Any) -> bool:
    """Whether a run with `--keep` left it."""
    return isinstance(metadata, Mapping) and metadata.get(MARK) == {"kept": True}


@contextmanager
def own_collection(client: Qdrant, spec: CollectionSpec, keep: bool, say: Say) -> Iterator[CollectionSpec]:
    """The spec under a name that is free, marked; when the block ends, however it ends, the collection is dropped.

    One of the same data that ``keep`` or a killed run left is used again, so that it need not be filled again. Others
    that killed runs left are dropped.
    """
    name = _free_name(client, spec.name, say)
    own = spec.model_copy(update={"name": name})
    if numbers(client.banner().rpartition(" ")[2]) >= METADATA_SINCE:
        mark = {MARK: asdict(Lease.own(PREPARATION_S))}
        own = own.model_copy(update={"metadata": {**(spec.metadata or {}), **mark}})
    try:
        yield own
    except BaseException:
        _drop(client, name, say)
        raise
    if keep:
        client.call("PATCH", collection_path(name), {"metadata": {MARK: {"kept": True}}})
        say(f"{name} is kept; the next run on the same data uses it, and drops it unless it has --keep too")
    else:
        _drop(client, name, say)


def renew(client: Qdrant, name: str, schedule: Schedule) -> None:
    """Hold the collection for one more round."""
    seconds = schedule.warmup_s + schedule.duration_s + SLACK_S + WORKERS_WAIT_S
    # A server that is gone is seen by the round itself.
    with suppress(QdrantError):
        client.call("PATCH", collection_path(name), {"metadata": {MARK: asdict(Lease.own(seconds))}})


def _free_name(client: Qdrant, stem: str, say: Say) -> str:
    """A kept or abandoned collection of the same data, or a new name; what else killed runs left is dropped."""
    usable = None
    for name, metadata in _marked(client):
        lease = Lease.of(metadata)
        if lease and lease.is_held():
            # A run through the gateway and past it in turn has one of each.
            if lease.pid != os.getpid() or name.startswith(f"{stem}_"):
                say(f"{name} is in use by another run (pid {lease.pid} on {lease.host}); the two disturb each other")
        elif usable is None and name.startswith(f"{stem}_") and NEW not in name:
            usable = name
        elif not is_kept(metadata):
            client.call("DELETE", collection_path(name))
            say(f"Dropped {name}, which a run that was cut off had left")
    return usable or f"{stem}_{secrets.token_hex(3)}"


def _marked(client: Qdrant) -> Iterator[tuple[str, Any]]:
    for name in client.collections():
        if not (name.startswith(PREFIX) and is_path_part(name)):
            continue
        # One that cannot be described cannot be told from anybody's.
        with suppress(QdrantError):
            metadata = metadata_of(client.collection(name))
            if is_load_gates(name, metadata):
                yield name, metadata


def _drop(client: Qdrant, name: str, say: Say) -> None:
    try:
        client.call("DELETE", collection_path(name))
    except QdrantError as error:
        say(f"{name} was not dropped, the next run does it: {error}")


def _started(process: psutil.Process) -> int:
    return int(1000 * process.create_time())


def _space() -> str:
    """This boot and this name space of processes; the host's name where the system does not tell."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
