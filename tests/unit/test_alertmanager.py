"""Routes and inhibition: amtool tests the first, a running Alertmanager the second."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from plinth.services import webhooks
from plinth.services.monitoring import alertmanager
from plinth.services.render import files
from plinth.settings.loader import parse
from tests.answers import Answers, close, serve
from tests.conftest import ROOT, free_port
from tests.unit.test_services import Elsewhere, secret_names

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
HOOKS = {
    "webhook_url": "http://127.0.0.1:9/page",
    "ticket_webhook_url": "http://127.0.0.1:9/ticket",
    "heartbeat_url": "http://127.0.0.1:9/beat",
}
needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None, reason="no amtool: apt-get install prometheus-alertmanager"
)
needs_alertmanager = pytest.mark.skipif(
    PROGRAM is None, reason="no alertmanager: apt-get install prometheus-alertmanager"
)


class Debian(Elsewhere):
    """A place with Debian 12's Alertmanager."""

    def takes_url_files(self) -> bool:
        return False


def config(directory: Path, **hooks: str) -> Path:
    settings = parse({"target": "local", "monitoring": {"alertmanager": hooks}}, source="x")
    values = dict.fromkeys(secret_names(settings), "k")
    values |= {name: value.get_secret_value() for name, value in webhooks.secrets(settings).items()}
    path = directory / "alertmanager.yml"
    path.write_text(files(alertmanager(settings), Debian(), values, ROOT)["alertmanager.yml"])
    return path


def receiver(path: Path, *labels: str) -> str:
    command = ["amtool", "config", "routes", "test", f"--config.file={path}", *labels]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_amtool
@pytest.mark.requirement("S1-09")
@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (("severity=page",), "page"),
        (("severity=ticket",), "ticket"),
        (("severity=info",), "nobody"),
        (("alertname=Watchdog", "severity=info"), "heartbeat"),
    ],
)
def test_alerts_are_routed_by_severity_and_the_watchdog_to_a_heartbeat(
    tmp_path: Path, labels: tuple[str, ...], wanted: str
) -> None:
    assert receiver(config(tmp_path, **HOOKS), *labels) == wanted


@needs_amtool
def test_with_one_address_tickets_go_there_and_without_one_nobody_is_called(tmp_path: Path) -> None:
    one = config(tmp_path, webhook_url=HOOKS["webhook_url"])
    assert receiver(one, "severity=ticket") == "ticket"
    urls = {r["name"]: r["webhook_configs"][0]["url"] for r in yaml.safe_load(one.read_text())["receivers"][1:]}
    assert urls == {"page": HOOKS["webhook_url"], "ticket": HOOKS["webhook_url"]}
    assert receiver(one, "alertname=Watchdog") == "nobody"
    assert receiver(config(tmp_path), "severity=page") == "nobody"


@pytest.fixture(scope="module")
def heard() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and the paths that were posted to."""
    paths: list[str] = []

    class Hook(Answers):
        def do_POST(self) -> None:
            self.content()
            paths.append(self.path)
            self.reply(200)

    server = serve(Hook)
    yield f"http://127.0.0.1:{server.server_port}", paths
    close(server)


@pytest.fixture(scope="module")
def running(heard: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("alertmanager")
    url = f"http://127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            str(PROGRAM),
            f"--config.file={config(directory, **{**HOOKS, 'heartbeat_url': f'{heard[0]}/beat'})}",
            f"--storage.path={directory / 'data'}",
            f"--web.listen-address={url.removeprefix('http://')}",
            "--cluster.listen-address=",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait(lambda: ready(url), "Alertmanager did not start")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").status_code == 200
    except httpx.HTTPError:
        return False


def wait(done: Callable[[], bool], words: str) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, words
        time.sleep(0.1)


@needs_alertmanager
@pytest.mark.requirement("S1-09")
def test_the_watchdog_reaches_the_heartbeat_at_once(running: str, heard: tuple[str, list[str]]) -> None:
    alert = {"labels": {"alertname": "Watchdog", "severity": "info"}, "endsAt": "2100-01-01T00:00:00Z"}
    assert httpx.post(f"{running}/api/v2/alerts", json=[alert]).status_code == 200
    wait(lambda: "/beat" in heard[1], "no heartbeat came")


@needs_alertmanager
@pytest.mark.parametrize(
    ("source", "silenced", "apart"),
    [
        (
            {"alertname": "QdrantDown", "job": "qdrant", "instance": "q1"},
            {"alertname": "QdrantRecoveryMode", "job": "qdrant", "instance": "q1"},
            {"alertname": "QdrantRecoveryMode", "job": "qdrant", "instance": "q2"},
        ),
        (
            {"alertname": "QdrantRecoveryMode", "job": "qdrant", "instance": "q3"},
            {"alertname": "QdrantSearchProbeFailing", "collection": "trades_v1"},
            {"alertname": "QdrantDeadReplicas", "job": "qdrant"},
        ),
        (
            {"alertname": "PostgresDown", "job": "postgres-exporter", "instance": "p"},
            {"alertname": "PostgresLongTransaction", "job": "postgres-exporter", "instance": "p"},
            {"alertname": "RedisEvicting", "job": "redis-exporter", "instance": "r"},
        ),
        (
            {"alertname": "RedisDown", "job": "redis-exporter", "instance": "r9"},
            {"alertname": "RedisMemoryNearLimit", "job": "redis-exporter", "instance": "r9"},
            {"alertname": "RedisMemoryNearLimit", "job": "redis-exporter", "instance": "r8"},
        ),
        (
            {"alertname": "QdrantConsensusStopped", "job": "qdrant", "instance": "q4"},
            {"alertname": "QdrantPendingOperationsStuck", "job": "qdrant", "instance": "q4"},
            {"alertname": "QdrantPendingOperationsStuck", "job": "qdrant", "instance": "q5"},
        ),
        (
            {"alertname": "QdrantCollectionRed", "collection": "a"},
            {"alertname": "QdrantOptimizerError", "collection": "a"},
            {"alertname": "QdrantOptimizerError", "collection": "b"},
        ),
        (
            {"alertname": "QdrantSearchSlow", "job": "qdrant", "api": "rest"},
            {"alertname": "QdrantSearchBudgetBurn", "job": "qdrant", "api": "rest"},
            {"alertname": "QdrantSearchBudgetBurn", "job": "qdrant", "api": "grpc"},
        ),
        (
            {"alertname": "QdrantErrorBudgetBurn", "job": "qdrant", "api": "grpc"},
            {"alertname": "QdrantErrorBudgetBurnSlow", "job": "qdrant", "api": "grpc"},
            {"alertname": "QdrantErrorBudgetBurnSlow", "job": "qdrant", "api": "rest"},
        ),
        (
            {"alertname": "HostDiskFillsUp", "instance": "h", "mountpoint": "/"},
            {"alertname": "HostDiskFillsUpSlowly", "instance": "h", "mountpoint": "/"},
            {"alertname": "HostDiskFillsUpSlowly", "instance": "h", "mountpoint": "/data"},
        ),
    ],
    ids=lambda labels: labels["alertname"] + "-" + str(labels.get("instance") or labels.get("collection") or ""),
)
def test_the_cause_silences_what_follows_from_it_and_nothing_else(
    running: str, source: dict[str, str], silenced: dict[str, str], apart: dict[str, str]
) -> None:
    alerts = [{"labels": labels, "endsAt": "2100-01-01T00:00:00Z"} for labels in (source, silenced, apart)]
    assert httpx.post(f"{running}/api/v2/alerts", json=alerts).status_code == 200

    def is_inhibited(labels: dict[str, str]) -> bool:
        found = httpx.get(f"{running}/api/v2/alerts").json()
        return any(alert["status"]["inhibitedBy"] for alert in found if alert["labels"] == labels)

    wait(lambda: is_inhibited(silenced), f"{silenced} is not silenced")
    assert not is_inhibited(apart)
    assert not is_inhibited(source)
