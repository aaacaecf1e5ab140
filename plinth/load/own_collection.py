"""The load gate's own collection: marked while a run uses it and dropped after it, as are those of killed runs."""

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

# Time to fill the largest data set and to build its index.
PREPARATION_S = 3600.0
NEW = "_new_"
# An older server stores no metadata, so that the leftovers of a killed run cannot be recognized there.
METADATA_SINCE = (1, 16)
# The start time of a process is less exact than that.
SAME_MS = 1000
Say = Callable[[str], None]


@dataclass(frozen=True)
class Lease:
    """The user of a gate's collection, from ``started`` to its latest end, in milliseconds since 1970.

    ``space`` is where ``pid`` is valid: this boot of this machine and its PID namespace.
    """

    host: str
    space: str
    pid: int
    started: int
    until: int

    @classmethod
    def own(cls, seconds: float) -> Self:
        """Return the lease of this process."""
        process = psutil.Process()
        return cls(socket.gethostname(), _space(), process.pid, _started(process), int(1000 * (time.time() + seconds)))

    @classmethod
    def of(cls, metadata: Any) -> Self | None:
        """Parse a mark; None for one that is not a run's."""
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
    """Yield the spec under a free name, marked; the collection is dropped when the block ends, however it ends.

    A collection of the same data that ``keep`` or a killed run left is reused, so that it need not be filled again.
    Other leftovers of killed runs are dropped.
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
    """Renew the lease of the collection for one more round."""
    seconds = schedule.warmup_s + schedule.duration_s + SLACK_S + WORKERS_WAIT_S
    # The round itself reports a server that is gone.
    with suppress(QdrantError):
        client.call("PATCH", collection_path(name), {"metadata": {MARK: asdict(Lease.own(seconds))}})


def _free_name(client: Qdrant, stem: str, say: Say) -> str:
    """Return a kept or abandoned collection of the same data, or a new name; drop other leftovers of killed runs."""
    usable = None
    for name, metadata in _marked(client):
        lease = Lease.of(metadata)
        if lease and lease.is_held():
            # An alternating run, through the gateway and directly, has one of each.
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
        # A collection that cannot be described may be anyone's.
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
    """Return this boot and this PID namespace, or the host name where the system does not report them."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
