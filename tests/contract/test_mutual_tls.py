"""Who asks without a certificate of the environment gets nothing: no metric, no connection elsewhere, no log."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from plinth.programs.healthchecks import nc_tcp
from plinth.services import mutual_tls
from tests.conftest import free_port
from tests.standing import Stack, ports
from tests.waiting import wait_for

EXPORTERS = ["redis-exporter", "node-exporter", "postgres-exporter"]
pytestmark = pytest.mark.skipif(
    not all(shutil.which(f"prometheus-{name}") for name in EXPORTERS), reason="no exporters: run `make bootstrap`"
)
UP = {"redis-exporter": "redis_up 0", "node-exporter": "node_boot_time_seconds", "postgres-exporter": "pg_up 0"}
PATHS = [
    *("/", "/metrics", "/health", "/scrape", "/probe", "/-/reload", "/discover-cluster-nodes", "/debug/pprof/"),
    "/metrics?collect[]=textfile",
]
# As a page in somebody's browser, or a neighbour on the machine, would ask.
HOSTS = ["127.0.0.1", "localhost", "evil.example"]


class Exporter(Stack):
    """A stack of which one exporter runs."""

    def __init__(self, name: str, root: Path, secrets: dict[str, str], **given: Any) -> None:
        super().__init__(root, secrets, **given)
        self.name = name


@pytest.fixture(scope="module", params=EXPORTERS)
def exporter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """An exporter whose store is away: whom it answers does not depend on that."""
    name: str = request.param
    secrets = {"redis_exporter_password": "of-the-exporter", "postgres_monitor_password": "of-the-monitor"}
    made = Exporter(
        name,
        tmp_path_factory.mktemp(name),
        secrets,
        redis=ports("port"),
        postgres=ports("port"),
        monitoring={"exporters": ports("redis_port", "node_port", "postgres_port")},
    )
    with made.running(name):

        def answers() -> bool:
            with suppress(httpx.TransportError):
                return made.get(name, "/metrics", "prometheus").is_success
            return False

        wait_for(answers, lambda: made.log(name), seconds=30)
        yield made


@pytest.mark.parametrize("client", ["prometheus", mutual_tls.PLINTH.name])
def test_prometheus_and_plinth_are_answered(exporter: Exporter, client: str) -> None:
    assert UP[exporter.name] in exporter.get(exporter.name, "/metrics", client).text


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", PATHS)
def test_nobody_else_gets_anything_or_makes_it_connect(exporter: Exporter, scheme: str, host: str, path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, httpx.Client(verify=False, trust_env=False) as anybody:
        target = f"{exporter.name.partition('-')[0]}://127.0.0.1:{listener.getsockname()[1]}"
        url = f"{scheme}://{exporter.address(exporter.name, 'http')}{path}"
        try:
            answer = anybody.get(url, params={"target": target, "check-keys": "*"}, headers={"Host": host})
        except httpx.TransportError:
            pass
        else:
            # What Go's server says to plain HTTP, before anything of it is read.
            assert (answer.status_code, answer.text) == (400, "Client sent an HTTP request to an HTTPS server.\n")
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("other", EXPORTERS)
def test_a_servers_own_certificate_opens_no_server(exporter: Exporter, other: str) -> None:
    with pytest.raises(httpx.TransportError):
        exporter.get(exporter.name, "/metrics", other)


@pytest.mark.skipif(not shutil.which("busybox"), reason="no busybox")
def test_the_health_command_of_a_container_passes_while_it_listens_and_fails_after(exporter: Exporter) -> None:
    script = nc_tcp("http")[2].replace("nc ", "busybox nc ", 1)
    for port, well in ((exporter.port(exporter.name, "http"), True), (free_port(), False)):
        done = subprocess.run(["sh", "-c", script, "nc", str(port)], check=False, timeout=20, capture_output=True)
        assert (done.returncode == 0) is well
