"""One gateway for the tests, over the embedded engine, Redis and Postgres; each test has organisations of its own."""

from __future__ import annotations

import shutil
import signal
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from plinth.gateway.caller import Scope
from plinth.gateway.tokens import issue_token
from plinth.system.ports import free_port
from tests.conftest import KEY, Server, make_server, real_qdrant
from tests.gateway.collector import Collector
from tests.migrated import postgres_server

QDRANT = "qdrant" if real_qdrant() else "embedded"
SIGNING_KEY = "signing-key-for-tests-of-32-bytes-and-more"
METRICS_TOKEN = "metrics-token-for-tests"
START_DEADLINE_S = 60

# A collection for each organisation's points, and one for each user's.
COLLECTIONS: list[dict[str, Any]] = [
    {
        "name": "embeddings_v1",
        "aliases": ["embeddings"],
        "vectors": {"size": 384, "distance": "Cosine"},
        "payload_indexes": {"org_id": {"type": "keyword", "is_tenant": True}, "content": "text"},
        "tenant": "org_id",
        "tenancy": "payload",
        "presets": {"mine": {"match": {"author": "{user}"}}},
    },
    {
        "name": "trades_v1",
        "aliases": ["trades"],
        "vectors": {"size": 4, "distance": "Cosine"},
        "payload_indexes": {
            "user_id": {"type": "keyword", "is_tenant": True},
            "symbol": "keyword",
            "closed_at": "datetime",
        },
        "tenant": "user_id",
        "tenancy": "payload",
        "tenant_is": "user",
        "presets": {
            "closed": {
                "match": {"symbol": "{symbol?}"},
                "range": {"closed_at": {"gte": "{since?}", "lt": "{until?}"}},
            }
        },
    },
    {
        "name": "playbooks_v1",
        "aliases": ["playbooks"],
        "vectors": {"size": 384, "distance": "Cosine"},
        # As shipped: links within a user and within what is shared, and none else.
        "hnsw_config": {"m": 0, "payload_m": 16},
        "payload_indexes": {
            "user_id": {"type": "keyword", "is_tenant": True},
            "org_id": "keyword",
            "name": "text",
            "is_public": "bool",
        },
        "tenant": "user_id",
        "tenancy": "payload",
        "tenant_is": "user",
        "public_field": "is_public",
        "presets": {"mine": {"match": {"user_id": "{user}"}}, "shared": {"match": {"is_public": True}}},
    },
    {"name": "private_v1", "aliases": ["private"], "vectors": {"size": 4, "distance": "Cosine"}},
]


@dataclass
class RedisServer:
    """A Redis that a test may stop and start again; what it knew is gone then."""

    directory: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""]
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", *arguments, "--dir", str(self.directory)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while (
            b"PONG"
            not in subprocess.run(["redis-cli", "-p", str(self.port), "ping"], capture_output=True, check=False).stdout
        ):
            assert time.monotonic() < deadline, "redis did not start"
            time.sleep(0.05)

    def stop(self, with_signal: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(with_signal)
        self.process.wait(timeout=30)


@dataclass
class Database:
    """A database of Postgres and its owner."""

    host: str
    port: int
    name: str
    user: str
    password: str


@dataclass
class Gateway:
    """A gateway in a process of its own."""

    directory: Path
    config: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    worker: subprocess.Popen[bytes] | None = None
    signer: str | None = None

    @property
    def url(self) -> str:
        scheme = "https" if "cert_file" in self.config["listen"] else "http"
        return f"{scheme}://127.0.0.1:{self.config['listen']['http_port']}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.config['listen']['grpc_port']}"

    @property
    def audit(self) -> Path:
        return self.directory / "audit.jsonl"

    def start(self, **variables: str) -> None:
        path = self.directory / "gateway.yaml"
        path.write_text(yaml.safe_dump(self.config))
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "plinth.gateway", "server", "--config-path", str(path)],
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **variables},
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            try:
                if httpx.get(f"{self.url}/healthz", timeout=2, verify=self.authorities()).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def start_worker(self) -> None:
        """A worker with the same configuration but what is for callers, and a port of its own."""
        path = self.directory / "worker.yaml"
        listen = {**self.config["listen"], "http_port": free_port()}
        audit = {"file": str(self.directory / "worker-audit.jsonl")}
        shared = {key: value for key, value in self.config.items() if key not in ("tokens", "metrics_token_file")}
        path.write_text(yaml.safe_dump({**shared, "listen": listen, "audit": audit}))
        with (self.directory / "worker-log").open("ab") as log:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "plinth.gateway", "worker", "--config-path", str(path)],
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            )

    def authorities(self) -> ssl.SSLContext | bool:
        """Who signed its certificate."""
        return ssl.create_default_context(cadata=self.signer) if self.signer else True

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        if self.worker is not None:
            self.worker.send_signal(with_signal)
            self.worker.wait(timeout=60)
        assert self.process is not None
        self.process.send_signal(with_signal)
        return self.process.wait(timeout=60)

    def http(self, organisation: str, user: str = "user", *scopes: Scope) -> httpx.Client:
        """A client with a token."""
        return httpx.Client(base_url=self.url, headers=login(organisation, user, *scopes), timeout=30)


class SilentServer:
    """Accepts connections and reads; `open` says how many of them the other side has not closed."""

    def __init__(self) -> None:
        self.requests = self.open = 0
        self._changed = threading.Condition()

    def __enter__(self) -> SilentServer:
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                server._count(opened=1)
                try:
                    while received := self.request.recv(65536):
                        server._count(requests=received.count(b"HTTP/1.1\r\n"))
                except OSError:
                    pass
                server._count(opened=-1)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Whether a condition on the counts comes true."""
        with self._changed:
            return self._changed.wait_for(condition, timeout=20)

    def _count(self, *, opened: int = 0, requests: int = 0) -> None:
        with self._changed:
            self.open += opened
            self.requests += requests
            self._changed.notify_all()


def login(organisation: str, user: str = "user", *scopes: Scope) -> dict[str, str]:
    """The header of a caller; every scope where none is named."""
    token = issue_token(SIGNING_KEY, organisation, user, scopes=scopes or tuple(Scope))
    return {"authorization": f"Bearer {token}"}


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the stack's own collections: the real one where there is a binary, else the embedded engine."""
    server = make_server(QDRANT, tmp_path_factory.mktemp("qdrant"), jwt_rbac=True)
    server.start()
    with httpx.Client(base_url=server.url, headers={"api-key": KEY}, timeout=30) as client:
        for spec in COLLECTIONS:
            body = {key: spec[key] for key in ("vectors", "hnsw_config") if key in spec}
            client.put(f"/collections/{spec['name']}", json=body).raise_for_status()
            for name, index in spec.get("payload_indexes", {}).items():
                client.put(
                    f"/collections/{spec['name']}/index", json={"field_name": name, "field_schema": index}
                ).raise_for_status()
            actions = [
                {"create_alias": {"collection_name": spec["name"], "alias_name": alias}} for alias in spec["aliases"]
            ]
            client.post("/collections/aliases", json={"actions": actions}).raise_for_status()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on PATH")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    # Pools of two gateways, their workers and dispatchers, and of the tests beside them.
    with postgres_server(connections=100) as server:
        with psycopg.connect(server.url(server.port), autocommit=True) as connection:
            connection.execute("CREATE ROLE gateway LOGIN PASSWORD 'gateway-password'")
            connection.execute("CREATE DATABASE gateway OWNER gateway")
            # Of the tests that have workers of their own.
            connection.execute("CREATE DATABASE jobs OWNER gateway")
        yield Database("127.0.0.1", server.port, "gateway", "gateway", "gateway-password")


@pytest.fixture(scope="session")
def make_gateway(
    qdrant: Server, redis: RedisServer, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Gateway]:
    """A maker of gateways, not yet started, with what a test changes of the configuration."""

    def make(**changes: Any) -> Gateway:
        directory = tmp_path_factory.mktemp("gateway")
        files = {"signing": SIGNING_KEY, "qdrant": KEY, "postgres": database.password, "metrics": METRICS_TOKEN}
        for name, secret in files.items():
            (directory / name).write_text(secret)
        config = {
            "listen": {"host": "127.0.0.1", "http_port": free_port(), "grpc_port": free_port()},
            "qdrant": {"url": qdrant.url, "api_key_file": str(directory / "qdrant"), "collection_tokens": True},
            "postgres": {
                "host": database.host,
                "port": database.port,
                "database": database.name,
                "user": database.user,
                "password_file": str(directory / "postgres"),
            },
            "redis": {"host": "127.0.0.1", "port": redis.port},
            "tokens": {"key_file": str(directory / "signing")},
            "collections": COLLECTIONS,
            "audit": {"file": str(directory / "audit.jsonl")},
            "metrics_token_file": str(directory / "metrics"),
            **changes,
        }
        return Gateway(directory, config)

    return make


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Who takes the traces of the gateway and of its worker."""
    with Collector() as running:
        yield running


@pytest.fixture(scope="session")
def gateway(make_gateway: Callable[..., Gateway], collector: Collector, tmp_path_factory: Any) -> Iterator[Gateway]:
    """The gateway that most tests ask."""
    headers = tmp_path_factory.mktemp("collector") / "headers"
    headers.write_text(f"authorization=Bearer {Collector.TOKEN}, x-scope=tests\n")
    tracing = {"endpoint": collector.url, "sample_ratio": 1.0, "headers_file": str(headers)}
    running = make_gateway(tracing=tracing)
    running.start()
    running.start_worker()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def without_qdrant(make_gateway: Callable[..., Gateway]) -> Iterator[Gateway]:
    """A gateway whose Qdrant is not there."""
    running = make_gateway(qdrant={"url": f"http://127.0.0.1:{free_port()}"})
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def silent_qdrant() -> Iterator[SilentServer]:
    """A server that takes requests and never answers."""
    with SilentServer() as server:
        yield server


@pytest.fixture(scope="session")
def with_silent_qdrant(make_gateway: Callable[..., Gateway], silent_qdrant: SilentServer) -> Iterator[Gateway]:
    """A gateway whose Qdrant never answers, and whose requests take two seconds at most."""
    running = make_gateway(qdrant={"url": f"http://127.0.0.1:{silent_qdrant.port}"}, limits={"request_s": 2})
    running.start()
    yield running
    running.stop()


@pytest.fixture
def organisation() -> str:
    """A name that no other test uses."""
    return f"org-{uuid.uuid4().hex[:12]}"
