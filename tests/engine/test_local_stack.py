"""The whole way on the real Pulumi engine: up, change, drift, kill, repair, down, as a person would run it.

One stack in a directory of its own; the tests are one story and run in order.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import yaml

from plinth.paths import home
from tests.conftest import ROOT, real_qdrant
from tests.engine.project import Project, is_alive, wait_ready
from tests.project import needs_prometheus, needs_pulumi
from tests.prometheus import get, values
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.engine,
    needs_pulumi,
    needs_prometheus,
]


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    # Not pytest's own directory, which it closes to others: Postgres runs as another user, who must be able to enter.
    # And of a name that every format reads otherwise unless it is quoted.
    with tempfile.TemporaryDirectory(prefix="a b#c%41 'q' ü\"x ") as directory:
        Path(directory).chmod(0o711)
        made = Project(Path(directory), "embedded")
        yield made
        made.plinth("down", "t", "--yes")


@pytest.mark.requirement("S1-05")
def test_up_stands_everything_up_and_status_agrees(project: Project) -> None:
    said = project.plinth("up", "t", "--no-verify")
    assert "Deployed in" in said
    status = project.json("status", "t")
    assert status["ready"] is True
    assert {"qdrant", "pg", "redis", "prometheus", "alertmanager", "node_exporter"} <= set(status["deps"])
    assert {"enabled", "ok", "skipped", "latency_ms"} <= set(status["deps"]["pg"])
    assert project.json("collections", "diff", "t")["in_sync"] is True


def test_a_second_up_changes_nothing(project: Project) -> None:
    assert "nothing to change" in project.plinth("up", "t", "--no-verify")
    assert "Nothing would change." in project.plinth("preview", "t")


@pytest.mark.requirement("S1-14")
def test_secrets_are_masked_encrypted_in_the_state_and_in_no_argument_list(project: Project) -> None:
    secrets = re.findall(r'"(?:api_key|password)": "([^"]+)"', json.dumps(project.outputs()))
    assert len(secrets) >= 4
    shown = project.plinth("outputs", "t") + json.dumps(project.json("outputs", "t"))
    states = "".join(path.read_text() for path in (project.root / ".plinth" / "backend").rglob("*.json*"))
    arguments = " ".join(" ".join(process.cmdline()) for process in project.supervised().values())
    for secret in secrets:
        assert secret not in shown
        assert secret not in states
        assert secret not in arguments


def test_every_port_is_on_loopback_alone(project: Project) -> None:
    daemon = project.supervised()["supervisord"]
    pids = {daemon.pid} | {child.pid for child in daemon.children(recursive=True)}
    listening = [c for c in psutil.net_connections("tcp") if c.pid in pids and c.status == psutil.CONN_LISTEN]
    assert len(listening) >= 8
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


@pytest.mark.requirement("S1-09")
def test_prometheus_scrapes_every_target(project: Project) -> None:
    prometheus = project.outputs()["prometheus"]
    targets: dict[str, tuple[str, str]] = {}

    def up() -> bool:
        found = get(prometheus, "targets")["activeTargets"]
        targets.update({target["labels"]["job"]: (target["health"], target["lastError"]) for target in found})
        return all(state == "up" for state, _ in targets.values())

    wait_for(up, lambda: str(targets))
    exporters = {"redis-exporter", "postgres-exporter", "node-exporter", "plinth-exporter"}
    assert {"qdrant", "prometheus", "alertmanager"} | exporters == set(targets)
    # Up says that the page was read; these say that the exporters could log in.
    for metric in ("pg_up", "redis_up"):
        assert values(prometheus, metric) == ["1"]


def test_a_killed_process_comes_back_by_itself(project: Project) -> None:
    redis = project.supervised()["redis-server"]
    redis.send_signal(signal.SIGKILL)
    wait_ready(project)
    assert project.supervised()["redis-server"].pid != redis.pid


def test_a_collection_changes_in_place_when_its_file_does(project: Project) -> None:
    path = project.collection_file("trades")
    path.write_text(path.read_text().replace("ef_construct: 100", "ef_construct: 120"))
    assert "collection-trades_v1" in project.plinth("preview", "t")
    assert project.json("collections", "diff", "t", expect=1)["steps"][0]["collection"] == "trades_v1"
    project.plinth("up", "t", "--no-verify")
    with project.qdrant() as client:
        info = client.collection("trades")
    assert info is not None
    assert info["config"]["hnsw_config"]["ef_construct"] == 120


def test_drift_is_found_by_refresh_and_mended_by_up(project: Project) -> None:
    with project.qdrant() as client:
        client.call("PATCH", "/collections/trades_v1", {"hnsw_config": {"ef_construct": 50}})
        client.call("DELETE", "/collections/sources_v1")
    said = project.plinth("refresh", "t", expect=1)
    assert "collection-trades_v1" in said
    assert "collection-sources_v1" in said
    project.plinth("up", "t", "--no-verify")
    assert project.json("collections", "diff", "t")["in_sync"] is True


def test_a_collection_whose_file_is_removed_stays_until_it_is_dropped(project: Project) -> None:
    (project.root / "config" / "collections" / "sources.yaml").unlink()
    said = " ".join(project.plinth("up", "t", "--no-verify").split())
    assert "no longer managed; its data stays. `plinth collections drop sources_v1 t` drops it" in said
    assert project.json("collections", "diff", "t")["unmanaged"] == ["sources_v1"]
    said = project.plinth("collections", "drop", "sources_v1", "t", "--drop-aliases", "--yes")
    (snapshot,) = (home(project.root, "t").data / "dropped").iterdir()
    assert snapshot.name in "".join(said.split())
    assert project.json("collections", "diff", "t")["unmanaged"] == []
    project.plinth("collections", "restore", str(snapshot), "t")
    with project.qdrant() as client:
        assert client.aliases()["sources"] == "sources_v1"


def test_a_size_that_cannot_change_is_refused_with_the_way_that_works(project: Project) -> None:
    path = project.collection_file("trades")
    before = path.read_text()
    path.write_text(before.replace("size: 768", "size: 1024"))
    said = project.plinth("up", "t", "--no-verify", expect=1)
    assert "trades_v1: vectors.size is 768 and the file wants 1024" in said
    assert "trades_v2" in said
    path.write_text(before)
    project.plinth("up", "t", "--no-verify")


def test_two_collections_of_one_alias_are_refused(project: Project) -> None:
    path = project.collection_file("second")
    path.write_text("name: second_v1\naliases: [trades]\nvectors: {size: 8, distance: Dot}\n")
    assert "alias 'trades' is claimed by second_v1, trades_v1" in project.plinth("up", "t", "--no-verify", expect=2)
    path.unlink()


@pytest.mark.requirement("S1-01")
def test_a_database_added_later_is_made_and_its_owner_alone_enters(project: Project) -> None:
    project.settings["plinth:postgres"]["databases"].append({"name": "lernmi"})
    project.save()
    project.plinth("up", "t", "--no-verify")
    where = project.outputs()["postgres"]

    def enter(database: str, user: str) -> None:
        password = where["databases"][user]["password"]
        with psycopg.connect(
            host=where["host"], port=where["port"], dbname=database, user=user, password=password
        ) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (x int)")
            connection.execute("INSERT INTO kept VALUES (1)")

    enter("lernmi", "lernmi")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        enter("digi_core", "lernmi")


def test_an_occupied_port_is_named_before_anything_changes(project: Project) -> None:
    before = project.settings["plinth:redis"]["port"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        project.settings["plinth:redis"]["port"] = taken.getsockname()[1]
        project.save()
        said = project.plinth("up", "t", "--no-verify", expect=2)
        assert f"Port {taken.getsockname()[1]} (plinth:redis.port) is taken by" in said
        assert f"pid {os.getpid()}" in said
    project.settings["plinth:redis"]["port"] = before
    project.save()
    project.plinth("status", "t", "--no-cache")


def test_a_wrong_setting_is_a_sentence(project: Project) -> None:
    project.settings["plinth:redis"]["prot"] = 1
    project.save()
    assert "unknown key plinth:redis.prot; did you mean 'port'?" in project.plinth("up", "t", expect=2)
    del project.settings["plinth:redis"]["prot"]
    project.save()


def test_a_deploy_that_fails_halfway_is_finished_by_the_next(project: Project) -> None:
    project.settings["plinth:redis"]["maxmemory_mib"] = 64
    project.save()
    said = project.plinth("up", "t", "--no-verify", expect=1, PLINTH_REDIS="/bin/false")
    assert "redis does not stay up" in said
    assert "goes on from there" in said
    project.plinth("status", "t", "--no-cache", expect=1)
    project.plinth("up", "t", "--no-verify")
    project.plinth("status", "t", "--no-cache")


def test_everything_killed_is_seen_by_refresh_and_stood_up_again(project: Project) -> None:
    daemon = project.supervised()["supervisord"]
    children = daemon.children(recursive=True)
    daemon.kill()
    for child in children:
        if child.is_running():
            child.kill()
    psutil.wait_procs(children, timeout=15)
    said = project.plinth("status", "t", "--no-cache", expect=1)
    assert "failed" in said
    project.plinth("refresh", "t", expect=1)
    project.plinth("up", "t", "--no-verify")
    project.plinth("status", "t", "--no-cache")


def test_processes_that_outlived_a_killed_supervisor_are_taken_over(project: Project) -> None:
    daemon = project.supervised()["supervisord"]
    orphans = daemon.children()
    daemon.kill()
    daemon.wait(timeout=10)
    project.plinth("up", "t", "--no-verify")
    project.plinth("status", "t", "--no-cache")
    assert not [orphan for orphan in orphans if is_alive(orphan)]


def test_a_lock_of_a_dead_run_is_released(project: Project) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    directory = project.root / ".plinth" / "backend" / ".pulumi" / "locks" / "organization" / "plinth" / "t"
    directory.mkdir(parents=True, exist_ok=True)
    lock = {"pid": dead.pid, "username": "x", "hostname": socket.gethostname(), "timestamp": "2026-01-01T00:00:00Z"}
    (directory / "00000000-0000-0000-0000-000000000000.json").write_text(json.dumps(lock))
    assert "its lock was released" in project.plinth("up", "t", "--no-verify")


def test_the_load_gate_passes_and_writes_its_reports(project: Project, tmp_path: Path) -> None:
    slo = yaml.safe_load((ROOT / "load" / "slo.yaml").read_text())
    slo["profiles"]["tiny"] = {**slo["profiles"]["smoke"], "duration_s": 6, "warmup_s": 1}
    slo["profiles"]["tiny"] |= {"min_samples": 3, "rate_per_s": 40, "rounds": 1, "mix": {"search": 3, "upsert": 1}}
    slo["profiles"]["tiny"]["data"] = {"source": "wordnet", "points": 600, "queries": 60}
    # Whether this machine is quick is no test; that the gate measures and judges is.
    for target in slo["operations"].values():
        target |= {"p95_ms": 10000, "p99_ms": 10000}
    slo["generator"] = {"min_achieved_share": 0.5, "max_lag_p95_ms": 5000, "min_headroom": 1}
    (project.root / "load" / "slo.yaml").write_text(yaml.safe_dump(slo))
    json_out, html_out = tmp_path / "report.json", tmp_path / "report.html"
    said = project.plinth("load", "t", "--profile", "tiny", "--json-out", str(json_out), "--html-out", str(html_out))
    assert "<svg" in html_out.read_text()
    assert "Verdict: pass" in said
    report = json.loads(json_out.read_text())
    assert report["verdict"] == "pass"
    assert {"count", "errors", "rps", "p50_ms", "p95_ms", "p99_ms", "target_ms"} <= set(report["operations"]["search"])
    assert report["operations"]["search"]["recall_at_10"] >= 0.97
    assert "Load gate" in html_out.read_text()
    with project.qdrant() as client:
        assert [name for name in client.collections() if name.startswith("plinth_load_")] == []
    slo["operations"]["search"] |= {"p95_ms": 0.01}
    (project.root / "load" / "slo.yaml").write_text(yaml.safe_dump(slo))
    assert "search: p95 is" in project.plinth("load", "t", "--profile", "tiny", expect=1)
    assert "no load profile 'tyni'" in project.plinth("load", "t", "--profile", "tyni", expect=2)


def test_down_asks_leaves_the_data_and_nothing_else(project: Project) -> None:
    assert "add --yes if you mean it" in project.plinth("down", "t", expect=2)
    everything = list(project.supervised().values())
    said = project.plinth("down", "t", "--yes")
    assert f"{project.root}/.plinth/t/data" in said
    assert not [process for process in everything if is_alive(process)]
    left = {path.name for path in (project.root / ".plinth").iterdir()}
    # The passphrase opens what `plinth secret` wrote into stack files.
    assert left <= {"t", "cache", "passphrase"}
    assert {path.name for path in (project.root / ".plinth" / "t").iterdir()} == {"data"}
    assert "not deployed" in project.plinth("outputs", "t", expect=1)


def test_up_after_down_finds_the_data(project: Project) -> None:
    project.plinth("up", "t", "--no-verify")
    where = project.outputs()["postgres"]
    password = where["databases"]["lernmi"]["password"]
    with psycopg.connect(
        host=where["host"], port=where["port"], dbname="lernmi", user="lernmi", password=password
    ) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1,)
    with project.qdrant() as client:
        assert "trades_v1" in client.collections()


@pytest.mark.requirement("S1-14")
def test_no_command_has_printed_a_secret(project: Project) -> None:
    assert project.printed_secrets() == []


@pytest.mark.qdrant
@pytest.mark.skipif(real_qdrant() is None, reason="no qdrant binary: set PLINTH_QDRANT or put it on PATH")
def test_a_real_server_is_not_started_over_the_embedded_engines_data(project: Project) -> None:
    project.settings["plinth:qdrant"]["engine"] = "auto"
    project.save()
    said = project.plinth("up", "t", "--no-verify", expect=2)
    assert "set plinth:qdrant.engine to embedded to go on" in said
    project.settings["plinth:qdrant"]["engine"] = "server"
    project.save()
    project.plinth("up", "t", "--no-verify")
    assert project.json("collections", "diff", "t")["in_sync"] is True
    assert "qdrant - vector search engine" in httpx.get(project.outputs()["qdrant"]["url"]).text
