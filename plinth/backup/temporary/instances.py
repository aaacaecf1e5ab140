"""Temporary instances on loopback, for a drill and for reading a saved Redis, of this machine's own binaries.

They start empty. The next run stops those that a killed run left behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import redis
from neo4j.exceptions import GqlError

from plinth.admin.postgres import Server
from plinth.backup.config import Neo4jStore
from plinth.backup.stores.neo4j.backup import connect as connect_neo4j
from plinth.backup.stores.redis.backup import Client, connect
from plinth.backup.temporary.launch import Here, Launcher, Started
from plinth.backup.temporary.recipes import HOST, Kind
from plinth.errors import UserError
from plinth.qdrant.ephemeral import Scratch
from plinth.system.http_client import client_for
from plinth.system.managed_process import INTERVAL_S, START_DEADLINE_S

_NAMES = {"postgres": "Postgres", "redis": "Redis", "neo4j": "Neo4j", "server": "Qdrant", "embedded": "embedded engine"}
_HERE = Here()


@contextmanager
def postgres(directory: Path, launcher: Launcher = _HERE) -> Iterator[Server]:
    """Yield an empty Postgres server in ``directory``, which is created and removed."""
    with _started("postgres", directory, launcher) as started:
        server = Server(HOST, started.told["port"], "postgres", started.told["password"])
        _wait("postgres", started, lambda: server.connect().close(), UserError)
        yield server


@contextmanager
def redis_server(directory: Path, rdb: Path | None, launcher: Launcher = _HERE) -> Iterator[tuple[Client, int, str]]:
    """Yield the client, port and password of a Redis server with the content of an RDB.

    ``directory`` is created and removed.
    """
    with _started("redis", directory, launcher, rdb) as started:
        port, password = started.told["port"], started.told["password"]
        with connect(HOST, port, password) as client:
            _wait("redis", started, client.ping, redis.RedisError)
            yield client, port, password


@contextmanager
def neo4j(directory: Path, launcher: Launcher = _HERE) -> Iterator[Neo4jStore]:
    """Yield an empty Neo4j; ``directory`` is created and removed, and so is its password file."""
    with _started("neo4j", directory, launcher) as started:
        file = directory.with_name(f"{directory.name}.password")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        try:
            file.write_text(started.told["password"])
            store = Neo4jStore(host=HOST, port=started.told["port"], password_file=file)
            _wait("neo4j", started, lambda: _answers(store), GqlError)
            yield store
        finally:
            file.unlink()


@contextmanager
def qdrant(kind: Kind, directory: Path, launcher: Launcher = _HERE) -> Iterator[Scratch]:
    """Yield an empty Qdrant; a real server runs as the only node of a cluster, since shard keys need one."""
    with _started(kind, directory, launcher) as started:
        snapshots = Path(started.told["snapshots"])
        engine = Scratch((), snapshots.parent, started.told["port"], api_key=started.told["password"])
        with client_for(engine.url, timeout=2) as client:
            _wait(kind, started, lambda: client.get("/readyz").raise_for_status(), httpx.HTTPError)
        yield engine


@contextmanager
def _started(kind: Kind, directory: Path, launcher: Launcher, seed: Path | None = None) -> Iterator[Started]:
    if seed:
        with seed.open("rb") as file:
            started = launcher.start(kind, directory, file)
    else:
        started = launcher.start(kind, directory)
    try:
        yield started
    finally:
        started.stop()


def _wait(kind: Kind, started: Started, ask: Callable[[], object], refusal: type[Exception]) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while (words := started.words()) is None and time.monotonic() < deadline:
        try:
            ask()
        except refusal:
            time.sleep(INTERVAL_S)
        else:
            return
    raise UserError(f"A throw-away {_NAMES[kind]} did not start: {words or 'it does not answer'}.", exit_code=1)


def _answers(store: Neo4jStore) -> None:
    with connect_neo4j(store) as session:
        session.run("RETURN 1").consume()
