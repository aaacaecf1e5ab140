"""Every client of Plinth, with a proxy in the environment: what is local never reaches it, what is remote does."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import requests
import tenacity.nap
import websocket
import yaml
from neo4j.exceptions import DriverError, Neo4jError

from plinth.admin.grafana import change_password
from plinth.backup.config import LentGrafana, Neo4jStore
from plinth.backup.repository import reachability
from plinth.backup.stores.grafana import backup as lent
from plinth.backup.stores.neo4j import backup as neo4j_backup
from plinth.backup.stores.qdrant.node_client import Node
from plinth.errors import UserError
from plinth.gateway.config import QdrantServer
from plinth.gateway.http_connections import ConnectionLostError
from plinth.gateway.qdrant_connection import QdrantConnection
from plinth.gateway.trace_exporter import session_for
from plinth.health.probes import Probe, ProbeFailed
from plinth.kubernetes import port_forward as forward
from plinth.kubernetes.client import Cluster
from plinth.load.grafana_annotation import annotate
from plinth.migrate.sources.chroma import ChromaOptions, open_chroma
from plinth.qdrant.client import Qdrant
from plinth.targets.docker.engine_api import Daemon
from tests.conftest import ROOT
from tests.proxy import EXEMPTIONS, VARIABLES, Proxy, listening

KEY = "an-api-key-to-keep"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
CONTAINERS = ("plinth-dev-qdrant", "qdrant.vectors.svc", "qdrant-0.qdrant-headless")
REMOTE = "store.example.com"
FAILURES = (
    *(UserError, ProbeFailed, lent.NotLent, httpx.HTTPError, DriverError, Neo4jError, OSError),
    *(websocket.WebSocketException, json.JSONDecodeError),
)


def qdrant(url: str, _: Path) -> None:
    with Qdrant(url, KEY) as client:
        client.collections()


def backup_node(url: str, _: Path) -> None:
    with Node(url, KEY) as node:
        node.call("GET", "/collections")


def grafana_admin(url: str, _: Path) -> None:
    change_password(url, KEY, "after")


def grafana_mark(url: str, _: Path) -> None:
    report: Any = SimpleNamespace(
        at="2026-01-01T00:00:00+00:00", profile="p", verdict=SimpleNamespace(word="pass", reasons=[])
    )
    annotate({"url": url, "user": "admin", "password": KEY}, report, 1)


def grafana_database(url: str, directory: Path) -> None:
    password = directory / "password"
    password.write_text(KEY)
    lent.borrow(LentGrafana(url=f"{url}/grafana.db", password_file=password), directory / "copy", 5)


def repository(url: str, _: Path) -> None:
    reachability.silence(f"rest:{url}/repository", "it", None)


def chroma(url: str, _: Path) -> None:
    with open_chroma(ChromaOptions(url, "c")):
        pass


def docker(url: str, _: Path) -> None:
    with Daemon(url.replace("http", "tcp", 1)) as daemon:
        daemon.version()


def cluster(url: str, directory: Path) -> None:
    _cluster(url, directory).version()


def port_forward(url: str, directory: Path) -> None:
    kubernetes = _cluster(url, directory)
    pod = SimpleNamespace(
        status=SimpleNamespace(phase="Running", conditions=()),
        metadata=SimpleNamespace(name="p", deletion_timestamp=None),
    )
    kubernetes.pods = lambda selector: [pod]  # type: ignore[method-assign]
    forward._way(kubernetes, forward.Route(1, "a=b", 2))


def _cluster(url: str, directory: Path) -> Cluster:
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": KEY}}],
    }
    file = directory / "kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig))
    return Cluster(str(file), None, "vectors")


def probe(kind: Any) -> Callable[[str, Path], None]:
    def ask(url: str, _: Path) -> None:
        parts = httpx.URL(url)
        Probe(kind, parts.host, parts.port or 80).run(KEY, timeout_s=2)

    ask.__name__ = f"probe_{kind}"
    return ask


def bolt(url: str, directory: Path) -> None:
    password, parts = directory / "password", httpx.URL(url)
    password.write_text(KEY)
    store = Neo4jStore(host=parts.host, port=parts.port or 80, password_file=password)
    with neo4j_backup.connect(store) as session:
        session.run("RETURN 1").consume()


def gateway_qdrant(url: str, _: Path) -> None:
    async def ask() -> None:
        connection = QdrantConnection(QdrantServer(url=url))
        with suppress(ConnectionLostError):
            await connection.send("GET", "/collections")
        await connection.close()

    asyncio.run(ask())


def gateway_traces(url: str, _: Path) -> None:
    with suppress(requests.RequestException):
        session_for(url).post(url, timeout=2)


# Those that speak HTTP, and those whose protocol knows no proxy.
HTTP = (
    *(qdrant, backup_node, grafana_admin, grafana_mark, grafana_database, repository, chroma, docker, cluster),
    *(port_forward, probe("http"), probe("neo4j"), gateway_qdrant, gateway_traces),
)
OTHERS = (probe("postgres"), probe("redis"), bolt)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in (*VARIABLES, *EXEMPTIONS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(socket, "getaddrinfo", _no_names)
    with listening() as proxy:
        yield proxy


@pytest.mark.parametrize("client", HTTP, ids=lambda client: client.__name__)
@pytest.mark.parametrize("host", [*LOOPBACK, *CONTAINERS])
def test_what_is_local_never_goes_by_a_proxy(
    client: Callable[[str, Path], None], host: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as store:
        url = f"http://{host}:{httpx.URL(store.url).port}"
        for variable in VARIABLES:
            monkeypatch.setenv(variable, proxy.url)
            _tried(client, url, tmp_path)
            assert proxy.requests == [], variable
            monkeypatch.delenv(variable)
        assert host != "127.0.0.1" or len(store.requests) >= len(VARIABLES)


@pytest.mark.parametrize("client", OTHERS, ids=lambda client: client.__name__)
def test_no_other_protocol_knows_a_proxy(
    client: Callable[[str, Path], None], proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, proxy.url)
    with listening() as store:
        _tried(client, store.url, tmp_path)
        assert store.requests
    assert proxy.requests == []


@pytest.mark.parametrize("client", HTTP, ids=lambda client: client.__name__)
def test_what_is_remote_goes_by_the_users_proxy_unless_no_proxy_names_it(
    client: Callable[[str, Path], None], proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, proxy.url)
        _tried(client, f"http://{REMOTE}:6333", tmp_path)
        assert proxy.requests, variable
        assert REMOTE in proxy.requests[0], variable
        monkeypatch.setenv("NO_PROXY", "other.test,.example.com")
        proxy.requests.clear()
        _tried(client, f"http://{REMOTE}:6333", tmp_path)
        assert proxy.requests == [], variable
        monkeypatch.delenv(variable)
        monkeypatch.delenv("NO_PROXY")


GENERATOR = """
import importlib.util, sys
from locust.env import Environment
spec = importlib.util.spec_from_file_location("generator", sys.argv[1])
generator = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generator)
if generator.JOB["protocol"] == "grpc":
    from qdrant_client.grpc import GetPoints
    stub = generator.PointsStub(generator._channel())
    try: stub.Get(GetPoints(), timeout=3, metadata=(("api-key", generator.JOB["api_key"]),))
    except generator.grpc.RpcError: pass
else:
    user = generator.RestUser(Environment())
    user.client.get("/collections", headers=user.headers)
"""


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize("host", LOOPBACK)
def test_the_load_generator_never_goes_by_a_proxy(protocol: str, host: str, proxy: Proxy, tmp_path: Path) -> None:
    with listening() as store:
        address = f"{host}:{httpx.URL(store.url).port}"
        url = address if protocol == "grpc" else f"http://{address}"
        job = {"through": "qdrant", "protocol": protocol, "url": url, "api_key": KEY, "tls": False, "ca_cert": None}
        (tmp_path / "job.json").write_text(json.dumps(job))
        np.savez(tmp_path / "data.npz", queries=np.zeros((1, 2)))
        _run([sys.executable, "-c", GENERATOR, str(ROOT / "load" / "locustfile.py")], tmp_path, proxy)
    assert proxy.requests == []


@pytest.mark.parametrize("host", LOOPBACK)
def test_the_runbooks_commands_do_not_either(host: str, proxy: Proxy, tmp_path: Path) -> None:
    words = (ROOT / "monitoring" / "runbooks" / "shell.sh").read_text()
    with listening() as store:
        url = f"http://{host}:{httpx.URL(store.url).port}/collections"
        # Its own first lines ask for a project.
        functions = words[words.index("# Keys and passwords") :]
        outputs = json.dumps({"qdrant": {"url": url, "read_only_api_key": KEY}})
        _run(["bash", "-c", f"{functions}\n_outputs() {{ echo '{outputs}'; }}\nq /aliases"], tmp_path, proxy)
        assert store.requests if host == "127.0.0.1" else True
    assert proxy.requests == []


ENGINE = """
import os, sys
from plinth.system.http_client import exempt_loopback
exempt_loopback(os.environ)
import grpc
for host in ("127.0.0.1", "localhost", "[::1]"):
    channel = grpc.insecure_channel(f"{host}:{sys.argv[1]}")
    try: channel.unary_unary("/a.B/C")(b"", timeout=3)
    except grpc.RpcError: pass
"""


def test_pulumis_own_channels_do_not_either(proxy: Proxy, tmp_path: Path) -> None:
    with listening() as engine:
        _run([sys.executable, "-c", ENGINE, str(httpx.URL(engine.url).port)], tmp_path, proxy)
        assert engine.requests
    assert proxy.requests == []


def test_no_client_is_made_elsewhere() -> None:
    made = ("httpx.Client(", "httpx.AsyncClient(", "httpx.get(", "httpx.post(", "httpx.head(", "httpx.stream(")
    others = ("urllib.request", "import requests", "urlopen(", "aiohttp", "new_client_from_config(")
    # A socket of this machine knows no proxy, and the exporter of traces has a session of its own library.
    allowed = {
        "plinth/system/http_client.py",
        "plinth/targets/docker/connection.py",
        "plinth/gateway/trace_exporter.py",
    }
    files = [*(ROOT / "plinth").rglob("*.py"), *(ROOT / "load").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    named = {
        f"{path.relative_to(ROOT)}: {word}"
        for path in files
        for word in (*made, *others)
        if word in path.read_text() and str(path.relative_to(ROOT)) not in allowed
    }
    assert named == set()


def _tried(client: Callable[[str, Path], None], url: str, directory: Path) -> None:
    with suppress(*FAILURES):
        client(url, directory)


def _run(command: list[str], directory: Path, proxy: Proxy) -> None:
    inherited = {name: value for name, value in os.environ.items() if name not in EXEMPTIONS}
    variables = {**dict.fromkeys(VARIABLES, proxy.url), "PLINTH_LOAD_JOB": str(directory / "job.json")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=directory,
        env={**inherited, **variables, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr


def _no_names(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
    """Addresses and localhost alone: nothing here asks a name server."""
    if host == "localhost":
        host = "127.0.0.1"
    if str(host).replace(".", "").isdigit() or ":" in str(host):
        return _getaddrinfo(host, port, *arguments, **options)
    raise socket.gaierror(socket.EAI_NONAME, "no names in this test")


_getaddrinfo = socket.getaddrinfo
