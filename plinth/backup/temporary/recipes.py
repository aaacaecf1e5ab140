"""How each temporary store is started: the files that it reads and cannot change, its empty directory, its program.

``Place.top`` belongs to the launcher: the store's configuration and its log are there. ``Place.given`` belongs to the
account, and the launcher writes nothing there once it is given away.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import yaml

from plinth.backup.session import tool
from plinth.errors import UserError
from plinth.programs.executables import find
from plinth.programs.neo4j import PROGRAM as NEO4J
from plinth.programs.qdrant import program
from plinth.qdrant.ephemeral import Scratch
from plinth.services.neo4j import credential
from plinth.system.atomic_files import pattern_of
from plinth.system.ports import free_port

Kind = Literal["postgres", "redis", "neo4j", "server", "embedded"]
HOST = "127.0.0.1"
CHUNK = 1 << 20
# The drill of one store does not import the modules of another.
ACCOUNTS: Mapping[str, str] = {
    "postgres": "plinth-drill-postgres",
    "redis": "plinth-drill-redis",
    "neo4j": "plinth-drill-neo4j",
    "server": "plinth-drill-qdrant",
    "embedded": "plinth-drill-qdrant",
}


@dataclass(frozen=True)
class Place:
    """The directory of one store. ``readable`` writes a file into ``top`` that its account can read."""

    top: Path
    readable: Callable[[str, str], Path]

    @property
    def given(self) -> Path:
        """Return the directory that the account owns."""
        return self.top / "given"

    @property
    def snapshots(self) -> Path:
        """Return the directory that both the account and the launcher write: what a Qdrant recovers from."""
        return self.top / "snapshots"


@dataclass(frozen=True)
class Recipe:
    """The commands of a store: one to run once before the program, and the program. ``told`` is for its client."""

    argv: tuple[str, ...]
    told: Mapping[str, Any]
    before: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    stop: Literal["INT", "TERM"] = "TERM"


def recipe(kind: Kind, place: Place, seed: BinaryIO | None) -> Recipe:
    """Write the files that a store reads; ``seed`` is the RDB of a Redis. ``place.given`` is still the launcher's."""
    if kind == "postgres":
        return _postgres(place)
    if kind == "redis":
        return _redis(place, seed)
    return _neo4j(place) if kind == "neo4j" else _qdrant(kind, place)


def _postgres(place: Place) -> Recipe:
    port, password, data = free_port(), secrets.token_hex(16), place.given / "data"
    file = place.readable("password", password)
    settings = {
        "port": port,
        "listen_addresses": HOST,
        "unix_socket_directories": "",
        "fsync": "off",
        "full_page_writes": "off",
        # A restore into new tables then needs no WAL.
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "autovacuum": "off",
        "maintenance_work_mem": "256MB",
        "max_wal_size": "4GB",
        # A kill then leaves nothing of it in shared memory.
        "dynamic_shared_memory_type": "mmap",
    }
    return Recipe(
        (
            tool("postgres", "postgresql"),
            "-D",
            str(data),
            *(w for s in settings.items() for w in ("-c", "=".join(map(str, s)))),
        ),
        {"port": port, "password": password},
        before=(
            tool("initdb", "postgresql"),
            f"--pgdata={data}",
            "--username=postgres",
            f"--pwfile={file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ),
        stop="INT",
    )


def _redis(place: Place, seed: BinaryIO | None) -> Recipe:
    """Return the recipe of a Redis without an append-only file: with one it would ignore the RDB."""
    port, password = free_port(), secrets.token_hex(16)
    if seed:
        left = os.fstat(seed.fileno()).st_size
        with (place.given / "dump.rdb").open("xb") as file:
            while left > 0 and (chunk := seed.read(min(left, CHUNK))):
                left -= file.write(chunk)
    directory = str(place.given).replace("\\", "\\\\").replace('"', '\\"')
    lines = (f"bind {HOST}", f"port {port}", f"requirepass {password}", f'dir "{directory}"', 'save ""')
    config = place.readable(
        "redis.conf", "\n".join((*lines, "appendonly no", "repl-diskless-sync-delay 0", "daemonize no", ""))
    )
    # It reads the name of its own file as a pattern, and starts without a password where none matches.
    argv = (tool("redis-server", "redis-server"), pattern_of(str(config)))
    return Recipe(argv, {"port": port, "password": password})


def _neo4j(place: Place) -> Recipe:
    port, password = free_port(), secrets.token_hex(16)
    program = find(NEO4J)
    if program is None:
        raise UserError("There is no neo4j on this machine; put one on PATH, or name it in PLINTH_NEO4J.")
    lines = (
        f"server.bolt.listen_address={HOST}:{port}",
        "server.http.enabled=false",
        "server.https.enabled=false",
        *(f"server.directories.{name}={place.given / name}" for name in ("data", "logs", "run", "import", "plugins")),
        "db.tx_log.preallocate=false",
        "server.memory.heap.max_size=512m",
        "server.memory.pagecache.size=128m",
        "dbms.usage_report.enabled=false",
    )
    place.readable("neo4j.conf", "\n".join((*lines, "")))
    login = place.given / "data" / "dbms" / "auth.ini"
    login.parent.mkdir(parents=True)
    login.touch(mode=0o600)
    login.write_text(f"neo4j:{credential(password)}:\n")
    java = {name: value for name in ("JAVA_HOME",) if (value := os.environ.get(name))}
    return Recipe(
        (program.argv[0], "console"),
        {"port": port, "password": password},
        environment={"NEO4J_CONF": str(place.top), **java},
    )


def _qdrant(kind: Literal["server", "embedded"], place: Place) -> Recipe:
    """Return the recipe of a Qdrant; a real server runs as the only node of a cluster, since shard keys need one."""
    found = find(program(kind))
    if found is None:
        raise UserError("There is no qdrant binary; put one on PATH or name it in PLINTH_QDRANT, or take embedded.")
    engine = Scratch(found.argv, place.given, free_port(), free_port() if kind == "server" else None)
    config = engine.config() | {
        "storage": {"storage_path": str(place.given / "storage"), "snapshots_path": str(place.snapshots)}
    }
    file = place.readable("config.yaml", yaml.safe_dump(config))
    return Recipe(
        (*engine.argv, "--config-path", str(file), *engine.founding()),
        {"port": engine.port, "password": engine.api_key, "snapshots": str(place.snapshots)},
    )
