"""Live stores with known content, and backups of them: what the fault tests break."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import yaml

from plinth.admin.postgres import Server, ensure_database
from plinth.backup.config import Config, load_config
from plinth.backup.stores.qdrant.node_client import Node
from plinth.backup.temporary.instances import postgres, redis_server
from plinth.qdrant.client import collection_path
from plinth.qdrant.ephemeral import Kind, Scratch, scratch
from plinth.status_files.backup_runs import State, read
from tests.databases import enter

OWN = ("directory", "state", "repository")
POINTS, ROWS, KEYS, SIZE = 300, 500, 50, 8


def fill_collection(node: Node, name: str, points: int = POINTS, **params: Any) -> None:
    """A collection with a payload index, an alias and ``points`` points."""
    body = {"vectors": {"size": SIZE, "distance": "Cosine"}, **params}
    path = collection_path(name)
    node.call("PUT", path, body)
    node.call(
        "PUT",
        f"{path}/index?wait=true",
        {"field_name": "t", "field_schema": {"type": "keyword", "is_tenant": True}},
    )
    vectors = np.random.default_rng(len(name)).normal(size=(points, SIZE)).tolist()
    rows = [{"id": i, "vector": v, "payload": {"t": f"t{i % 3}", "n": i}} for i, v in enumerate(vectors)]
    node.call("PUT", f"{path}/points?wait=true", {"points": rows})


@dataclass
class Live:
    """Running stores; `secrets` are files that hold what opens them."""

    qdrant: Scratch
    postgres: Server
    redis_port: int
    redis_password: str
    redis: Any
    secrets: Path

    @property
    def node(self) -> Node:
        return Node(self.qdrant.url, self.qdrant.api_key)

    def stores(self) -> dict[str, Any]:
        found = {
            "qdrant": {"urls": [self.qdrant.url], "api_key_file": str(self.secrets / "qdrant")},
            "postgres": {
                "host": self.postgres.host,
                "port": self.postgres.port,
                "user": self.postgres.user,
                "password_file": str(self.secrets / "postgres"),
            },
            "redis": {"host": "127.0.0.1", "port": self.redis_port, "password_file": str(self.secrets / "redis")},
        }
        found["qdrant"]["snapshots"] = str(self.qdrant.snapshots)
        return found


def start_empty(stack: ExitStack, directory: Path, kind: Kind) -> Live:
    """All three stores, with nothing in them."""
    engine = stack.enter_context(scratch(kind, directory / "qdrant"))
    server = stack.enter_context(postgres(directory / "postgres"))
    client, port, password = stack.enter_context(redis_server(directory / "redis", None))
    secrets = directory / "secrets"
    secrets.mkdir()
    for name, value in (("qdrant", engine.api_key), ("postgres", server.password), ("redis", password)):
        (secrets / name).write_text(value)
    return Live(engine, server, port, password, client, secrets)


def start(stack: ExitStack, directory: Path, kind: Kind) -> Live:
    """All three stores, filled."""
    live = start_empty(stack, directory, kind)
    server = live.postgres
    with live.node as node:
        fill_collection(node, "trades_v1")
        fill_collection(node, "a b%", 20)
        alias = {"create_alias": {"alias_name": "trades", "collection_name": "trades_v1"}}
        node.call("POST", "/collections/aliases", {"actions": [alias]})
    ensure_database(server, "core", "core", "pass")
    with enter(server, "core") as connection:
        connection.execute("CREATE TABLE rows (id serial PRIMARY KEY, words text, at timestamptz DEFAULT now())")
        connection.execute("CREATE TABLE keyless (n int, x float8)")
        connection.execute("INSERT INTO rows (words) SELECT md5(n::text) FROM generate_series(1, %s) n", (ROWS,))
        connection.execute("INSERT INTO keyless SELECT n %% 7, n / 3.0 FROM generate_series(1, %s) n", (ROWS,))
        connection.execute("ALTER DATABASE core SET work_mem = '5MB'")
    fill_redis(live.redis)
    return live


def fill_redis(client: Any) -> None:
    for n in range(KEYS):
        client.set(f"s{n}", f"value {n}")
    client.hset("h", mapping={str(n): n for n in range(20)})
    client.rpush("l", *range(30))
    client.sadd("set", *range(30))
    client.zadd("z", {str(n): n / 3 for n in range(30)})
    client.xadd("x", {"a": 1})
    client.set("fleeting", "soon gone", ex=3600)


class Stored(Protocol):
    """What backups are made of."""

    def stores(self) -> dict[str, Any]:
        """The keys of the configuration that name the stores."""


@dataclass
class Backups:
    """A repository and what works on it. ``progress`` are the lines of calls within this process."""

    directory: Path
    live: Stored
    settings: dict[str, Any] = field(default_factory=dict)
    progress: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "password").write_text("correct horse")
        self.settings = {
            "name": "t",
            "directory": str(self.work),
            "state": str(self.directory / "state" / "backups.json"),
            "repository": {"location": str(self.repository), "password_file": str(self.directory / "password")},
            **self.live.stores(),
            **self.settings,
        }

    def copy(self, directory: Path) -> Backups:
        """The same repository once more, to break."""
        shutil.copytree(self.directory, directory)
        kept = {key: value for key, value in self.settings.items() if key not in OWN}
        return Backups(directory, self.live, kept)

    @property
    def work(self) -> Path:
        return self.directory / "work"

    @property
    def repository(self) -> Path:
        return self.directory / "repository"

    @property
    def file(self) -> Path:
        path = self.directory / "config.yaml"
        path.write_text(yaml.safe_dump(self.settings))
        return path

    @property
    def config(self) -> Config:
        return load_config(self.file)

    @property
    def state(self) -> State:
        return read(self.config.state)

    def say(self, line: str) -> None:
        self.progress.append(line)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "plinth.backup", "--config", str(self.file), *arguments]

    def call(self, *arguments: str, expect: int = 0) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    def sets(self) -> list[dict[str, Any]]:
        done = subprocess.run(self.command("--json", "list"), capture_output=True, text=True, check=True)
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def listed_when_free(self) -> list[dict[str, Any]]:
        """The sets, once the programs that outlived a killed run have ended."""
        end = time.monotonic() + 60
        while True:
            done = subprocess.run(self.command("--json", "list"), capture_output=True, text=True, check=False)
            if done.returncode == 0:
                found: list[dict[str, Any]] = json.loads(done.stdout)
                return found
            assert "is at work" in done.stderr, done.stderr
            assert time.monotonic() < end
            time.sleep(0.2)


def killed_at(phase: str, argv: list[str]) -> None:
    """Run a command in a process of its own and kill it, hard, when the phase's line appears."""
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    try:
        for line in child.stderr:
            if phase in line:
                child.send_signal(signal.SIGKILL)
                break
        else:
            pytest.fail(f"the phase {phase!r} did not come")
    finally:
        child.kill()
        child.stderr.close()
        child.wait()
