"""An engine of our own on loopback, over a temporary directory: for trying things that must not touch a live stack."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import httpx
import psutil
import yaml

from plinth.errors import UserError
from plinth.services.qdrant import program
from plinth.system.http_client import client_for
from plinth.system.managed_process import Child
from plinth.targets.local.executables import find

Kind = Literal["auto", "server", "embedded"]
PORTS = range(20_000, 30_000)


class Memory(NamedTuple):
    """What a process and its children hold, in bytes; a page that several share counts in parts (PSS).

    ``anonymous`` cannot be given back; ``files`` are mapped pages, which the kernel takes when it needs memory.
    """

    anonymous: int
    files: int

    @property
    def total(self) -> int:
        """Both."""
        return self.anonymous + self.files


@dataclass
class Scratch:
    """A running engine. Its data lies in ``directory``, which whoever made it removes."""

    argv: tuple[str, ...]
    directory: Path
    port: int = 0
    peer_port: int | None = None
    api_key: str = field(default_factory=lambda: secrets.token_hex(16))
    _child: Child | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage(self) -> Path:
        """Where its collections lie."""
        return self.directory / "storage"

    @property
    def snapshots(self) -> Path:
        """Where it makes and finds snapshots."""
        return self.directory / "snapshots"

    def start(self) -> None:
        """Start it and wait until it serves; raises :class:`UserError` with its last words."""
        self.port = free_port()
        config = self.directory / "config.yaml"
        config.touch(mode=0o600)
        config.write_text(yaml.safe_dump(self.config()))
        self._child = Child([*self.argv, "--config-path", str(config), *self.founding()], self.directory)
        with client_for(self.url, timeout=2) as client:
            self._child.wait(self.argv[0], lambda: client.get("/readyz").raise_for_status(), httpx.HTTPError)

    def stop(self) -> None:
        """End it; what it acknowledged is in its directory."""
        child, self._child = self._child, None
        if child:
            child.stop()

    def memory(self) -> Memory:
        """What it holds now."""
        return memory_of(self._child.pid) if self._child else Memory(0, 0)

    def disk(self) -> int:
        """Bytes that its collections occupy on disk, without their logs; sparse parts of files do not count."""
        files = (path for path in self.storage.rglob("*") if path.is_file() and "wal" not in path.parts)
        return sum(path.stat().st_blocks * 512 for path in files)

    def config(self) -> dict[str, object]:
        """What it reads of how to serve."""
        return {
            "log_level": "WARN",
            "telemetry_disabled": True,
            "service": {
                "host": "127.0.0.1",
                "http_port": self.port,
                "grpc_port": free_port(),
                "api_key": self.api_key,
            },
            "storage": {"storage_path": str(self.storage), "snapshots_path": str(self.snapshots)},
            **({"cluster": {"enabled": True, "p2p": {"port": self.peer_port}}} if self.peer_port else {}),
        }

    def founding(self) -> tuple[str, ...]:
        """The arguments of a cluster's first node."""
        return ("--uri", f"http://127.0.0.1:{self.peer_port}") if self.peer_port else ()


@contextmanager
def scratch(kind: Kind, directory: Path, peer_port: int | None = None) -> Iterator[Scratch]:
    """An engine that runs within the block: a real server's binary where ``kind`` asks for it and there is one.

    ``directory`` is made, and removed at the end. With ``peer_port`` a server is a cluster of one node: shard keys need
    one.
    """
    found = find(program(kind))
    if found is None:
        raise UserError("There is no qdrant binary; put one on PATH or name it in PLINTH_QDRANT, or take embedded.")
    directory.mkdir(parents=True)
    engine = Scratch(found.argv, directory, peer_port=peer_port)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(directory, ignore_errors=True)


def memory_of(pid: int) -> Memory:
    """What a process and all that it started hold."""
    own = psutil.Process(pid)
    parts = [_memory(process.pid) for process in (own, *own.children(recursive=True))]
    return Memory(sum(part.anonymous for part in parts), sum(part.files for part in parts))


def free_port() -> int:
    """A port of loopback that nobody listens on now.

    It is none of those that the kernel gives to outgoing connections (32768 and up by default): one of them may have it
    again before the server binds.
    """
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise UserError(f"Every port of 127.0.0.1 from {PORTS.start} to {PORTS.stop - 1} is taken; end what listens there.")


def _memory(pid: int) -> Memory:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return Memory(0, 0)  # it ended meanwhile
    kilobytes = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines)}
    anonymous = kilobytes["Pss_Anon"] * 1024
    return Memory(anonymous, kilobytes["Pss"] * 1024 - anonymous)


def available() -> tuple[Kind, ...]:
    """The engines that this machine can run."""
    found = find(program("server"), os.environ)
    return ("server", "embedded") if found else ("embedded",)
