"""An ephemeral Qdrant on loopback, over a temporary directory, for trials that must not touch a live stack."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx
import yaml

from plinth.errors import UserError
from plinth.programs.executables import find
from plinth.programs.qdrant import program
from plinth.system.http_client import client_for
from plinth.system.managed_process import Child
from plinth.system.memory import Memory, memory_of
from plinth.system.ports import free_port

Kind = Literal["auto", "server", "embedded"]


@dataclass
class Scratch:
    """A running server. Its data is in ``directory``, which the caller that created it removes."""

    argv: tuple[str, ...]
    directory: Path
    port: int = 0
    peer_port: int | None = None
    api_key: str = field(default_factory=lambda: secrets.token_hex(16))
    _child: Child | None = None

    @property
    def url(self) -> str:
        """The address that it listens on."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage(self) -> Path:
        """The directory of its collections."""
        return self.directory / "storage"

    @property
    def snapshots(self) -> Path:
        """The directory of its snapshots."""
        return self.directory / "snapshots"

    def start(self) -> None:
        """Start it and wait until it serves; raises :class:`UserError` with its last output."""
        self.port = free_port()
        config = self.directory / "config.yaml"
        config.touch(mode=0o600)
        config.write_text(yaml.safe_dump(self.config()))
        self._child = Child([*self.argv, "--config-path", str(config), *self.founding()], self.directory)
        with client_for(self.url, timeout=2) as client:
            self._child.wait(self.argv[0], lambda: client.get("/readyz").raise_for_status(), httpx.HTTPError)

    def stop(self) -> None:
        """Stop it; every acknowledged write is in its directory."""
        child, self._child = self._child, None
        if child:
            child.stop()

    def memory(self) -> Memory:
        """Return the memory that it uses now."""
        return memory_of(self._child.pid) if self._child else Memory(0, 0)

    def disk(self) -> int:
        """Bytes that its collections occupy on disk, without their logs; holes in sparse files do not count."""
        files = (path for path in self.storage.rglob("*") if path.is_file() and "wal" not in path.parts)
        return sum(path.stat().st_blocks * 512 for path in files)

    def config(self) -> dict[str, object]:
        """Return its configuration."""
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
        """Return the arguments of a cluster's first node."""
        return ("--uri", f"http://127.0.0.1:{self.peer_port}") if self.peer_port else ()


@contextmanager
def scratch(kind: Kind, directory: Path, peer_port: int | None = None) -> Iterator[Scratch]:
    """Run a server within the block: a real server's binary where ``kind`` requires it and there is one.

    ``directory`` is created, and removed at the end. With ``peer_port`` a server is a cluster of one node: shard keys
    need one.
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


def available() -> tuple[Kind, ...]:
    """Return the kinds of server that this machine can run."""
    found = find(program("server"), os.environ)
    return ("server", "embedded") if found else ("embedded",)
