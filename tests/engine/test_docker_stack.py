"""The docker target with real containers: up, look inside, kill, restart, change, down and up again, as one story."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from plinth.load.wordnet import DIRECTORY
from tests.conftest import ROOT, free_port, real_qdrant
from tests.containers import built, own
from tests.containers.applied import needs_containers, provided
from tests.containers.engine import Containers
from tests.containers.stack import Stack, settings
from tests.grafana import Grafana, errors, has_grafana, needs_grafana
from tests.project import Environment, needs_pulumi
from tests.prometheus import values
from tests.slo import SHORT, unhurried
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.engine,
    pytest.mark.docker,
    needs_pulumi,
    needs_containers,
]
WORDNET = (DIRECTORY / "data.noun").exists()
SERVICES = {"qdrant-0", "postgres", "redis", "prometheus", "alertmanager", "plinth-backup"} | {
    f"{name}-exporter" for name in ("node", "redis", "postgres", "plinth")
}
GRAFANA = {"grafana"} if has_grafana() else set()
GATEWAY = {"gateway", "gateway-worker"}
SERVICES |= GRAFANA | GATEWAY
EXPORTER = "plinth-exporter"
OWN = {EXPORTER, "plinth-backup", *GATEWAY}
# The image holds the set of WordNet's that it asks for.
SHORT_OF_WORDNET = SHORT | ({"data": {"source": "wordnet", "points": 400, "queries": 40}} if WORDNET else {})
POINT = {"points": [{"id": 7, "vector": [0.1] * 384, "payload": {"kept": True}}]}


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return docker.from_env()


@pytest.fixture(scope="module")
def plugin(client: docker.DockerClient) -> Iterator[dict[str, str]]:
    with provided(client) as variables:
        yield variables


@pytest.fixture(scope="module")
def stack(client: docker.DockerClient, plugin: dict[str, str]) -> Iterator[Stack]:
    env = f"one{secrets.token_hex(3)}"
    images = built.build(client) | built.build_grafana(client)
    mine = {"python": own.base(client), "plinth": f"localhost/plinth-tests/plinth:{env}"}
    with tempfile.TemporaryDirectory(prefix="plinth-docker-") as directory:
        ports = {key: free_port() for key in ("http_port", "grpc_port", "worker_port")}
        wanted = settings(images | mine, gateway={"enabled": True, **ports})
        if GRAFANA:
            wanted["plinth:monitoring"]["grafana"] = {"port": free_port()}
        made = Stack(Path(directory), wanted, env, **plugin)
        made.containers, made.images = Containers(client, env), images | mine
        try:
            yield made
        finally:
            made.containers.remove()
            if client.images.list(mine["plinth"]):
                client.images.remove(mine["plinth"])


@pytest.mark.requirement("S1-03")
@pytest.mark.requirement("S1-05")
def test_up_makes_containers_that_are_healthy_and_status_agrees(stack: Stack) -> None:
    said = stack.up()
    assert "Deployed in" in said
    assert all(f"{name} is left out" in said for name in OWN)
    assert f"`plinth images build {stack.env}` makes it" in said
    assert set(stack.containers.running()) == SERVICES - OWN
    stack.containers.wait_healthy()
    status = stack.json("status", stack.env)
    assert status["ready"] is True
    assert {"qdrant", "pg", "redis", "prometheus", "alertmanager", "node_exporter"} <= set(status["deps"])
    assert stack.json("collections", "diff", stack.env)["in_sync"] is True
    assert "The gateway of" in stack.plinth("gateway", "token", stack.env, "--org", "a", "--user", "u", expect=1)
    with stack.qdrant() as qdrant:
        qdrant.call("PUT", "/collections/embeddings/points?wait=true", POINT)
    with stack.postgres() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    stack.redis().set("kept", "42")


def test_the_own_image_is_built_and_its_exporter_watches_the_collections(stack: Stack, tmp_path: Path) -> None:
    own.fill_wheels(tmp_path)
    (stack.root / "load" / "slo.yaml").write_text(
        unhurried({"smoke": SHORT_OF_WORDNET, "long": SHORT | {"duration_s": 300}})
    )
    assert "makes it" in stack.plinth("images", "pull", stack.env, expect=1)
    said = stack.plinth("images", "build", stack.env, "--wheels", str(tmp_path))
    assert "Step 1/" in said
    stack.up()
    assert set(stack.containers.running()) == SERVICES
    stack.containers.wait_healthy()
    page = f"http://127.0.0.1:{stack.settings['plinth:monitoring']['exporters']['plinth_port']}/metrics"
    wait_for(lambda: 'plinth_collection_status{collection="embeddings_v1",status="green"} 1.0' in httpx.get(page).text)
    prometheus = stack.outputs()["prometheus"]
    wait_for(lambda: values(prometheus, f'up{{job="{EXPORTER}"}}') == ["1"])


@pytest.mark.requirement("S0-03")
@pytest.mark.requirement("S0-04")
def test_the_gateway_keeps_an_organisations_points_and_does_its_jobs(stack: Stack) -> None:
    token = stack.json("gateway", "token", stack.env, "--org", "acme", "--user", "ann")["token"]
    outputs = stack.outputs()
    login = {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=outputs["gateway"]["url"], headers=login, timeout=30) as http:
        ready = http.get("/readyz").json()
        assert {name: about["ok"] for name, about in ready["deps"].items()} == dict.fromkeys(
            ("pg", "redis", "qdrant"), True
        )
        made = http.post("/v1/collections", json={"name": "docs", "dimension": 3, "distance": "Cosine"})
        assert made.status_code == 201, made.text
        points = [{"id": name, "vector": vector} for name, vector in (("east", [1, 0, 0]), ("north", [0, 1, 0]))]
        assert http.put("/v1/collections/docs/points", json={"points": points}).json() == {"count": 2}
        hits = http.post("/v1/collections/docs/search", json={"vector": [0.9, 0.1, 0], "top_k": 1}).json()["hits"]
        assert [hit["id"] for hit in hits] == ["east"]
        texts = {"items": [{"id": "cat", "text": "A kitten sleeps"}, {"id": "car", "text": "The lorry needs oil"}]}
        job = http.post("/v1/collections/embeddings/embed", json=texts).json()["job_id"]
        wait_for(lambda: http.get(f"/jobs/{job}").json()["status"] == "completed")
        # The weights are in the image: server and worker both read them.
        found = http.post("/v1/collections/embeddings/search", json={"text": "a pet", "top_k": 1}).json()["hits"]
        assert [hit["id"] for hit in found] == ["cat"]
    wait_for(
        lambda: [values(outputs["prometheus"], f'up{{job="{name}"}}') for name in sorted(GATEWAY)] == [["1"], ["1"]]
    )


@pytest.mark.requirement("S1-14")
def test_the_gateways_worker_has_no_key_that_admits_callers(stack: Stack) -> None:
    running = stack.containers.running()
    held = {name: set(running[name].exec_run("ls /etc/plinth").output.decode().split()) for name in GATEWAY}
    assert held["gateway"] - held["gateway-worker"] == {"gateway_signing_key.secret", "gateway_metrics_token.secret"}
    assert held["gateway-worker"] <= held["gateway"]


@pytest.mark.requirement("S0-05")
def test_the_exporter_tells_what_each_container_takes_and_agrees_with_the_engine(
    stack: Stack, client: docker.DockerClient
) -> None:
    running = stack.containers.running()

    def counted(name: str) -> tuple[float, float]:
        """Nanoseconds of processor time and of being held back, by the engine's word."""
        cpu = client.api.stats(running[name].id, stream=False, one_shot=True)["cpu_stats"]
        return cpu["cpu_usage"]["total_usage"], cpu["throttling_data"]["throttled_time"]

    def limit(name: str, nano_cpus: int) -> None:
        url = client.api._url("/containers/{0}/update", running[name].id)
        assert client.api._post_json(url, data={"NanoCpus": nano_cpus}).ok

    idle = told(stack)
    usual = stack.containers.inspected()["redis"]["HostConfig"]["NanoCpus"]
    # So little that it is used up on the busiest machine.
    limit("redis", 10**9 // 50)
    assert running["redis"].exec_run(["bash", "-c", "while [ $SECONDS -lt 3 ]; do :; done"]).exit_code == 0
    limit("redis", usual)
    before = {name: counted(name) for name in running}
    found = told(stack)
    after = {name: counted(name) for name in running}
    assert {name for _, name in found} == set(running)
    for name, about in stack.containers.inspected().items():
        figures = found[about["Config"]["Labels"]["plinth.service"], name]
        assert figures["memory_limit_bytes"] == about["HostConfig"]["Memory"], name
        assert 0 < figures["unreclaimable_bytes"] < figures["memory_limit_bytes"], name
        assert 0 < figures["working_set_bytes"] <= figures["memory_limit_bytes"], name
        times = (figures["cpu_seconds_total"] * 10**9, figures["cpu_throttled_seconds_total"] * 10**9)
        for least, value, most in zip(before[name], times, after[name], strict=True):
            # A float of seconds has not every nanosecond.
            assert least - 1000 <= value <= most + 1000, name
    busy, rested = found["redis", "redis"], idle["redis", "redis"]
    assert busy["cpu_throttled_periods_total"] > rested["cpu_throttled_periods_total"]
    assert busy["cpu_throttled_seconds_total"] > rested["cpu_throttled_seconds_total"]


def told(stack: Stack) -> dict[tuple[str, str], dict[str, float]]:
    """The exporter's figures of containers, by service and node."""
    page = f"http://127.0.0.1:{stack.settings['plinth:monitoring']['exporters']['plinth_port']}/metrics"
    found: dict[tuple[str, str], dict[str, float]] = {}
    for family in text_string_to_metric_families(httpx.get(page, timeout=30).text):
        for sample in family.samples:
            if sample.name.startswith("plinth_service_"):
                figures = found.setdefault((sample.labels["service"], sample.labels["node"]), {})
                figures[sample.name.removeprefix("plinth_service_")] = sample.value
    return found


@pytest.mark.requirement("S1-14")
def test_the_exporter_reads_what_the_kernel_counts_and_has_no_way_to_the_engine(stack: Stack) -> None:
    bound = {
        (name, mount["Source"], mount["RW"])
        for name, about in stack.containers.inspected().items()
        for mount in about["Mounts"]
        if mount["Type"] != "volume"
    }
    assert bound == {(EXPORTER, "/sys/fs/cgroup", False)}
    exporter = stack.containers.running()[EXPORTER]
    for command in ("mkdir /read/cgroup/cpu/x", ": >>/read/cgroup/cpu/cpu.shares", ": >>/read/cgroup/cgroup.procs"):
        assert exporter.exec_run(["sh", "-c", command]).exit_code != 0, command


def test_the_own_image_holds_what_backups_need_and_nothing_of_its_build(
    stack: Stack, client: docker.DockerClient
) -> None:
    exporter = stack.containers.running()[EXPORTER]
    for command in ("restic version", "pg_dump --version", "psql --version", "redis-server --version"):
        assert exporter.exec_run(command).exit_code == 0, command
    assert b"65534" in exporter.exec_run("id -u").output
    assert exporter.exec_run("ls /build /root/.cache /opt/plinth/matplotlib /opt/plinth/pulumi").exit_code != 0
    history = json.dumps(client.images.get(stack.images["plinth"]).history())
    assert "PIP_INDEX_URL=" not in history
    assert "/build" not in history


def in_use(client: docker.DockerClient) -> tuple[set[str], set[str]]:
    """The engine's containers and volumes by name."""
    return (
        {one.name for one in client.containers.list(all=True)},
        {volume.name for volume in client.volumes.list()},
    )


@pytest.mark.requirement("S2-02")
def test_the_load_comes_from_the_stacks_network_and_its_reports_come_home(
    stack: Stack, client: docker.DockerClient, tmp_path: Path
) -> None:
    files = {option: tmp_path / option for option in ("json", "html", "junit")}
    outs = [word for option, path in files.items() for word in (f"--{option}-out", str(path))]
    with stack.qdrant() as qdrant:
        before, collections = in_use(client), qdrant.collections()
        said = stack.plinth("load", stack.env, "--workers", "2", *outs)
        assert "Loaded 400 points into plinth_load_" in said
        assert "Verdict: pass" in said
        assert "comes from this machine" not in said
        found = json.loads(files["json"].read_text())
        assert found["url"].startswith(f"http://plinth-{stack.env}-qdrant-0:")
        assert (found["verdict"], found["generator"]["processes"]) == ("pass", 2)
        assert found["operations"]["search"]["recall_at_10"] > 0.9
        assert "<svg" in files["html"].read_text()
        assert "testsuite" in files["junit"].read_text()
        assert (in_use(client), qdrant.collections()) == (before, collections)


@pytest.mark.requirement("S1-14")
def test_a_ctrl_c_ends_the_load_and_nothing_of_it_stays(stack: Stack, client: docker.DockerClient) -> None:
    command = [sys.executable, "-c", "from plinth.cli import main; main()", "load", stack.env, "--profile", "long"]
    with stack.qdrant() as qdrant:
        before, collections, key = in_use(client), qdrant.collections(), stack.outputs()["qdrant"]["api_key"]
        process = subprocess.Popen(
            command,
            cwd=stack.root,
            env=stack.surroundings(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith("  Load: 30 requests/s") for line in lines)
        (load,) = client.containers.list(filters={"label": f"plinth.load={stack.env}"})
        assert key not in json.dumps(client.api.inspect_container(load.id))
        assert key not in load.exec_run("cat /proc/1/environ /proc/1/cmdline").output.decode()
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait(90) == 130, said
        assert "Interrupted: the load was ended" in said
        assert "Traceback" not in said
        assert (in_use(client), qdrant.collections()) == (before, collections)


@pytest.mark.requirement("S1-06")
def test_backups_are_made_in_their_container_and_status_and_the_exporter_tell_of_them(stack: Stack) -> None:
    status = stack.json("status", stack.env, "--no-cache")
    assert (status["ready"], status["backups"]["backup"]) == (True, None)
    said = stack.plinth("backup", "run", stack.env)
    assert "  taking redis" in said
    assert "is complete" in said
    (kept,) = stack.json("backup", "list", stack.env)
    assert kept["complete"] is True
    assert stack.json("backup", "verify", stack.env, "--all")[0]["problems"] == []
    assert "of 4 of the data was read" in stack.plinth("backup", "check", stack.env)
    assert stack.json("backup", "check", stack.env, "--all")["parts"] == 1
    assert "sets begin with 'nope'" in stack.plinth("backup", "verify", stack.env, "--snapshot", "nope", expect=1)
    if real_qdrant():
        stack.plinth("backup", "drill", stack.env)
    status = stack.json("status", stack.env, "--no-cache")
    told = status["backups"]
    assert (status["ready"], told["backup"]["result"], told["check"]["result"]) == (True, "ok", "ok")
    assert told["backup"]["age_s"] < 600
    assert "last good" in stack.plinth("status", stack.env)
    page = f"http://127.0.0.1:{stack.settings['plinth:monitoring']['exporters']['plinth_port']}/metrics"
    stores = [f'plinth_backup_store_ok{{store="{name}"}} 1.0' for name in ("qdrant", "postgres", "redis", *GRAFANA)]
    wait_for(lambda: all(line in httpx.get(page).text for line in stores))


def test_a_ctrl_c_ends_a_backup_in_its_container_and_the_next_one_goes_well(stack: Stack) -> None:
    command = [sys.executable, "-c", "from plinth.cli import main; main()", "backup", "run", stack.env]
    process = subprocess.Popen(
        command, cwd=stack.root, env=stack.surroundings(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "  opening the repository\n"
    process.send_signal(signal.SIGINT)
    said = process.stdout.read()
    assert process.wait(60) == 130, said
    assert "is complete" not in said
    assert "Traceback" not in said
    # Nobody holds the lock any more.
    stack.json("backup", "run", stack.env)


def test_status_is_not_ready_while_the_backups_are_down_or_their_last_good_one_is_old(stack: Stack) -> None:
    container = stack.containers.running()["plinth-backup"]
    container.stop(timeout=60)
    status = stack.json("status", stack.env, "--no-cache", expect=1)
    assert [name for name, about in status["deps"].items() if about["ok"] is False] == ["backup"]
    assert status["backups"]["backup"]["result"] == "ok"
    refused = stack.plinth("backup", "run", stack.env, expect=1)
    assert f"plinth-{stack.env}-plinth-backup is exited" in refused
    assert f"`plinth up {stack.env}` starts it" in refused
    container.start()
    stack.wait_ready()
    state = "/var/lib/plinth/state/backups.json"
    program = "import json; s = json.load(open(p)); s['backup']['succeeded_at'] -= 259200; json.dump(s, open(p, 'w'))"
    assert container.exec_run(["python3", "-c", f"p = {state!r}; {program}"]).exit_code == 0
    status = stack.json("status", stack.env, "--no-cache", expect=1)
    assert "the last good backup is 3.0 d old" in status["deps"]["backup"]["detail"]
    stack.json("backup", "run", stack.env)
    stack.wait_ready()


@pytest.mark.requirement("S1-06")
def test_the_backup_container_puts_back_what_was_lost(stack: Stack) -> None:
    # The embedded engine restores from its own disk, which the container does not see.
    stores = ("postgres", "redis", *(("qdrant",) if real_qdrant() else ()))
    stack.redis().delete("kept")
    with stack.postgres() as connection:
        connection.execute("DROP TABLE kept")
    if "qdrant" in stores:
        with stack.qdrant() as qdrant:
            qdrant.call("DELETE", "/collections/embeddings_v1")
    wanted = [word for store in stores for word in ("--store", store)]
    assert "add --yes if you mean it" in stack.plinth("backup", "restore", stack.env, *wanted, "--replace", expect=2)
    said = stack.plinth("backup", "restore", stack.env, *wanted, "--replace", "--yes")
    assert f"is restored into '{stack.env}'" in said
    assert stack.redis().get("kept") == b"42"
    with stack.postgres() as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    with stack.qdrant() as qdrant:
        assert qdrant.call("GET", "/collections/embeddings/points/7")["payload"] == {"kept": True}


@pytest.mark.requirement("S1-05")
@needs_grafana
def test_grafana_has_the_dashboards_and_reaches_prometheus(stack: Stack) -> None:
    grafana = Grafana(stack.outputs()["grafana"])
    assert set(grafana.boards()) >= {"plinth-overview", "plinth-qdrant", "plinth-host"}
    assert grafana.get("/api/datasources/uid/plinth-prometheus/health")["status"] == "OK"
    query = {"refId": "A", "datasource": {"type": "prometheus", "uid": "plinth-prometheus"}, "expr": "up"}
    wait_for(lambda: grafana.rows([query])["A"] > 0)
    about = stack.containers.inspected()["grafana"]
    assert about["Config"]["User"] == "472:0"
    assert about["HostConfig"]["ReadonlyRootfs"] is True
    said = stack.containers.running()["grafana"].logs().decode()
    assert not errors(said)
    assert grafana.password not in said
    before = grafana.password
    stack.settings["plinth:monitoring"]["grafana"]["admin_password"] = "a;b #c $d"
    stack.save()
    stack.up()
    changed = Grafana(stack.outputs()["grafana"])
    assert changed.password != before
    assert changed.get("/api/org")


@pytest.mark.requirement("S1-06")
@needs_grafana
def test_grafanas_database_is_in_the_set_and_the_documented_commands_put_it_back(stack: Stack, tmp_path: Path) -> None:
    def documented(words: str) -> None:
        (line,) = [line.strip() for line in (ROOT / "docs" / "backup.md").read_text().splitlines() if words in line]
        subprocess.run(
            ["sh", "-c", line.replace("prod", stack.env).replace("FILE", "kept.db")], cwd=tmp_path, check=True
        )

    mounts = stack.containers.inspected()["plinth-backup"]["Mounts"]
    assert [mount["RW"] for mount in mounts if mount["Destination"] == "/read/grafana/data"] == [False]
    grafana = Grafana(stack.outputs()["grafana"])
    marked = {"time": 1_700_000_000_000, "tags": ["kept"], "text": "by hand"}
    made = grafana.ask("POST", "/api/annotations", json=marked)["id"]
    stack.plinth("backup", "run", stack.env)
    assert stack.json("backup", "list", stack.env)[0]["stores"]["grafana"] == "ok"
    grafana.ask("DELETE", f"/api/annotations/{made}")
    documented("dump latest")
    documented("docker exec -i")
    wait_for(lambda: stack.containers.inspected()["grafana"]["State"]["Health"]["Status"] == "healthy")
    (mark,) = grafana.get("/api/annotations", tags="kept")
    assert mark["text"] == "by hand"


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    assert "nothing to change" in stack.up()


@pytest.mark.requirement("S1-14")
def test_a_container_is_as_locked_as_it_was_declared(stack: Stack) -> None:
    for name, about in stack.containers.inspected().items():
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{about['State']['Pid']}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert int(status["CapEff"], 16) == 0, name
        assert int(status["CapBnd"], 16) == 0, name
        assert status["NoNewPrivs"].strip() == "1", name
        assert "0" not in status["Uid"].split(), name
        assert about["HostConfig"]["ReadonlyRootfs"] is True, name
        assert about["HostConfig"]["Memory"] == about["HostConfig"]["MemorySwap"] > 0, name
        assert about["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped", name
        limits = Path(f"/proc/{stack.containers.pid(name)}/limits").read_text()
        assert re.search(r"Max processes +4096 +4096", limits), name
    qdrant = stack.containers.running()["qdrant-0"]
    refused = qdrant.exec_run(["bash", "-c", ": >/qdrant/x || : >/etc/plinth/x"])
    assert refused.exit_code != 0
    assert b"Read-only file system" in refused.output


def test_the_program_is_process_one_and_stops_in_good_order(stack: Stack) -> None:
    commands = {
        name: Path(f"/proc/{stack.containers.pid(name)}/comm").read_text().strip()
        for name in ("qdrant-0", "postgres", "redis")
    }
    assert commands["qdrant-0"] in ("qdrant", "python3")
    assert commands["postgres"] == "postgres"
    assert commands["redis"] == "redis-server"
    for name in (*commands, *OWN):
        container = stack.containers.running()[name]
        container.stop(timeout=60)
        assert container.wait()["StatusCode"] != 137, f"{name} had to be killed"
        container.start()
    stack.wait_ready()


@pytest.mark.requirement("S1-14")
def test_no_secret_shows_in_inspect_logs_volumes_or_the_state(stack: Stack, client: docker.DockerClient) -> None:
    every = client.containers.list(all=True, filters={"label": f"plinth.stack={stack.env}"})
    shown = json.dumps([client.api.inspect_container(container.id) for container in every])
    shown += json.dumps(client.api.volumes(filters={"label": f"plinth.stack={stack.env}"}))
    shown += "".join(container.logs().decode(errors="replace") for container in every)
    shown += stack.states() + stack.plinth("outputs", stack.env)
    for secret in stack.secrets():
        assert secret not in shown


@pytest.mark.requirement("S1-14")
def test_no_port_is_beyond_loopback(stack: Stack) -> None:
    published = [
        binding
        for about in stack.containers.inspected().values()
        for bindings in about["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    ]
    assert len(published) >= 9
    assert {binding["HostIp"] for binding in published} == {"127.0.0.1"}
    ports = {int(binding["HostPort"]) for binding in published}
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port in ports]
    assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}


@pytest.mark.requirement("S1-14")
def test_no_container_runs_a_tag_that_moves(stack: Stack) -> None:
    for name, about in stack.containers.inspected().items():
        assert re.fullmatch("sha256:[0-9a-f]{64}", about["Config"]["Image"]), name
    images = stack.json("images", "list", stack.env)
    assert images == {key: reference for key, reference in stack.images.items() if key != "python"}
    assert not [reference for reference in images.values() if reference.endswith(":latest") or ":" not in reference]


def test_a_killed_process_comes_back_by_itself(stack: Stack) -> None:
    before = {name: stack.containers.pid(name) for name in ("qdrant-0", "postgres", "redis")}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    stack.wait_ready()
    assert all(stack.containers.pid(name) != pid for name, pid in before.items())
    with stack.qdrant() as qdrant:
        assert qdrant.call("GET", "/collections/embeddings/points/7")["payload"] == {"kept": True}


def test_containers_may_start_again_in_any_order(stack: Stack) -> None:
    running = stack.containers.running()
    for container in running.values():
        container.stop(timeout=30)
    for name in sorted(running, reverse=True):
        running[name].start()
    stack.wait_ready()
    stack.containers.wait_healthy()


def test_what_was_stopped_or_removed_is_mended_by_up(stack: Stack) -> None:
    running = stack.containers.running()
    running["redis"].stop(timeout=30)
    running["alertmanager"].remove(force=True)
    assert "are not as they were deployed" in stack.plinth("refresh", stack.env, expect=1)
    stack.up()
    assert set(stack.containers.running()) == SERVICES
    stack.wait_ready()


def test_a_changed_setting_replaces_its_container_and_keeps_the_data(stack: Stack) -> None:
    before = {name: container.id for name, container in stack.containers.running().items()}
    stack.settings["plinth:redis"]["maxmemory_mib"] = 64
    stack.save()
    stack.up()
    after = {name: container.id for name, container in stack.containers.running().items()}
    assert {name for name in SERVICES if before[name] != after[name]} == {"redis"}
    assert stack.redis().get("kept") == b"42"
    assert stack.redis().info("memory")["maxmemory"] == 64 << 20


def test_an_image_that_no_registry_has_is_a_sentence_and_touches_nothing(stack: Stack) -> None:
    before = {name: container.id for name, container in stack.containers.running().items()}
    stack.settings["plinth:docker"]["images"]["redis"] = "127.0.0.1:9/nowhere/redis:7.4.9"
    stack.save()
    said = stack.up(expect=1)
    assert "The image 127.0.0.1:9/nowhere/redis:7.4.9 is not on this engine and could not be pulled" in said
    assert "plinth images load" in said
    assert {name: container.id for name, container in stack.containers.running().items()} == before
    stack.settings["plinth:docker"]["images"]["redis"] = stack.images["redis"]
    stack.save()


def test_an_engine_that_does_not_run_is_a_sentence(stack: Stack) -> None:
    for command in (("up", "--no-verify"), ("down", "--yes"), ("refresh",)):
        said = stack.plinth(command[0], stack.env, *command[1:], expect=1, DOCKER_HOST="unix:///nowhere/docker.sock")
        assert "The Docker engine at unix:///nowhere/docker.sock does not answer" in said
        assert "DOCKER_HOST names it" in said
        assert "systemctl start docker" in said


def test_a_taken_port_is_named_with_who_has_it(stack: Stack) -> None:
    before = stack.settings["plinth:redis"]["port"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        stack.settings["plinth:redis"]["port"] = taken.getsockname()[1]
        stack.save()
        said = stack.up(expect=2)
        assert f"Port {taken.getsockname()[1]} (plinth:redis.port) is taken by" in said
    stack.settings["plinth:redis"]["port"] = before
    stack.save()


@pytest.mark.parametrize(
    ("key", "setting", "value", "part"),
    [
        ("docker", "nofile", 10**9, "cannot give a container 1000000000 open files"),
        ("qdrant", "cpus", 4096, "a container may have no more"),
        ("qdrant", "memory_mib", 1 << 30, "MiB of memory, and qdrant would get"),
    ],
)
def test_a_limit_that_the_engine_cannot_give_is_refused_and_touches_nothing(
    stack: Stack, key: str, setting: str, value: int, part: str
) -> None:
    before, usual = set(stack.containers.inspected()), dict(stack.settings[f"plinth:{key}"])
    ids = {container.id for container in stack.containers.running().values()}
    stack.settings[f"plinth:{key}"][setting] = value
    stack.save()
    assert part in stack.up(expect=2)
    if key == "qdrant":
        assert part in stack.plinth("preview", stack.env, expect=2)
    assert {container.id for container in stack.containers.running().values()} == ids
    assert set(stack.containers.inspected()) == before
    stack.settings[f"plinth:{key}"] = usual
    stack.save()


def test_a_deploy_that_fails_halfway_is_finished_by_the_next(stack: Stack, client: docker.DockerClient) -> None:
    images = stack.settings["plinth:docker"]["images"]
    # It has no program; its tag is that of no version with a hole.
    client.images.get(built.tiny(client)).tag("plinth-tests/nothing", "7.4.9")
    usual, images["redis"] = images["redis"], "plinth-tests/nothing:7.4.9"
    stack.settings["plinth:qdrant"]["version"] = "1.19.1"
    stack.save()
    said = stack.up(expect=1)
    assert "goes on from there" in said
    assert "Unable to start container" in said
    images["redis"] = usual
    # It is recorded, and binds nobody: the server that answers is the one of before.
    assert "1.19.1" in stack.states()
    del stack.settings["plinth:qdrant"]["version"]
    stack.save()
    stack.up()
    assert set(stack.containers.running()) == SERVICES
    stack.wait_ready()


def test_config_files_that_are_not_whole_are_brought_again(stack: Stack, client: docker.DockerClient) -> None:
    carrier = client.api.inspect_container(f"plinth-{stack.env}-redis-config")
    (volume,) = [mount["Name"] for mount in carrier["Mounts"] if mount["Destination"] == "/etc/plinth"]
    within = {"volumes": {volume: {"bind": "/files"}}, "user": "0", "remove": True}
    client.containers.run(stack.images["redis"], ["/files/redis.conf"], entrypoint=["rm"], **within)
    assert "redis-config is made again" in stack.up()
    assert client.containers.run(stack.images["redis"], ["/files/redis.conf"], entrypoint=["cat"], **within)
    assert set(stack.containers.running()) == SERVICES


def test_a_pruned_engine_has_not_drifted_and_no_container_made_a_volume_without_a_name(
    stack: Stack, client: docker.DockerClient
) -> None:
    every = client.containers.list(all=True, filters={"label": f"plinth.stack={stack.env}"})
    mounted = {
        mount["Name"] for one in every for mount in client.api.inspect_container(one.id)["Mounts"] if "Name" in mount
    }
    assert not [name for name in mounted if not name.startswith(f"plinth-{stack.env}-")]
    # As `docker system prune` does with the containers that do not run.
    for one in every:
        if one.status == "created":
            one.remove(v=True)
    assert "Nothing has drifted." in stack.plinth("refresh", stack.env)
    running = {container.id for container in stack.containers.running().values()}
    stack.up()
    assert {container.id for container in stack.containers.running().values()} == running


def test_two_stacks_live_side_by_side(stack: Stack, client: docker.DockerClient, plugin: dict[str, str]) -> None:
    env = f"two{secrets.token_hex(3)}"
    both = Containers(client, env)
    others = {
        "postgres": {"enabled": False},
        "backup": {"enabled": False},
        "monitoring": {key: {"enabled": False} for key in ("prometheus", "alertmanager", "grafana", "exporters")},
        "collections": {"only": ["trades"]},
    }
    with tempfile.TemporaryDirectory(prefix="plinth-docker-") as directory:
        wanted = settings(stack.images, **others)
        second = Environment(Path(directory), wanted, env, **plugin)
        try:
            wanted["plinth:redis"]["port"] = stack.settings["plinth:redis"]["port"]
            second.save()
            said = second.up(expect=2)
            assert f"is published by the container plinth-{stack.env}-redis of the stack '{stack.env}'" in said
            wanted["plinth:redis"]["port"] = free_port()
            second.save()
            second.up()
            assert set(both.running()) == {"qdrant-0", "redis"}
            assert set(stack.containers.running()) == SERVICES
            assert second.outputs()["qdrant"]["api_key"] != stack.outputs()["qdrant"]["api_key"]
            second.plinth("down", env, "--yes")
            assert both.running() == {}
            stack.plinth("status", stack.env, "--no-cache")
        finally:
            both.remove()


def test_images_are_saved_to_a_file_and_loaded_from_it(client: docker.DockerClient, tmp_path: Path) -> None:
    tiny = built.tiny(client)
    file, env = tmp_path / "images.tar", f"air{secrets.token_hex(3)}"
    (tmp_path / "project").mkdir()
    site = Environment(tmp_path / "project", settings(dict.fromkeys((*built.KEYS, "plinth"), tiny)), env)
    assert f"Saved 1 image(s) to {file}" in site.plinth("images", "save", env, str(file))
    client.images.remove(tiny)
    assert "Every image of" in site.plinth("images", "load", env, str(file))
    assert f"there   {tiny}" in site.plinth("images", "pull", env)
    site.settings["plinth:docker"]["images"]["redis"] = "127.0.0.1:9/other/redis:7.4.9"
    site.save()
    assert "does not hold 127.0.0.1:9/other/redis:7.4.9" in site.plinth("images", "load", env, str(file), expect=1)
    file.write_text("no archive")
    assert "could not be loaded" in site.plinth("images", "load", env, str(file), expect=1)
    client.images.remove(tiny)


def test_down_leaves_the_volumes_and_a_qdrant_of_another_version_is_kept_from_them(stack: Stack) -> None:
    said = stack.plinth("down", stack.env, "--yes")
    assert f"plinth-{stack.env}-qdrant-0-storage" in said
    assert stack.containers.running() == {}
    for version, words in (("1.20.0", "skips from 1.18.3 to 1.20.0"), ("1.17.1", "Qdrant cannot go back")):
        stack.settings["plinth:qdrant"]["version"] = version
        stack.save()
        assert words in stack.up(expect=2)
    assert stack.containers.running() == {}
    del stack.settings["plinth:qdrant"]["version"]
    stack.save()


def test_up_after_down_finds_the_data(stack: Stack) -> None:
    stack.up()
    with stack.qdrant() as qdrant:
        assert qdrant.call("GET", "/collections/embeddings/points/7")["payload"] == {"kept": True}
    with stack.postgres() as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    assert stack.redis().get("kept") == b"42"


@pytest.mark.requirement("S1-14")
def test_no_command_has_printed_a_secret(stack: Stack) -> None:
    assert stack.printed_secrets() == []
