"""`dev` and `cluster` under Pulumi's mocks: every line of hardening, every network, port, volume, image and secret."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plinth.backup.config import Config as BackupConfig
from plinth.certificates import issue, make_authority
from plinth.environment import load_settings, parse
from plinth.errors import UserError
from plinth.exporter.config import Config
from plinth.settings import Settings
from tests.conftest import ROOT
from tests.containers.scripted import Engine
from tests.containers.wire import in_the_clear, to_plain
from tests.program.recorder import SECRET, Recorder, declare

ENVIRONMENTS = ["dev", "cluster"]
NODES = {"dev": 1, "cluster": 3}
PINS = yaml.safe_load((ROOT / "config" / "images.yaml").read_text())["images"]
Run = Callable[..., Recorder]


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine that has Plinth's own image."""
    made = Engine({PINS["plinth"]: {}})
    monkeypatch.setenv("DOCKER_HOST", made.host)
    yield made
    made.close()


def containers(recorder: Recorder) -> dict[str, dict[str, Any]]:
    """Those that run; not those that carry files."""
    return {name: to_plain(inputs) for name, inputs in recorder.of("Container").items() if inputs.get("start", True)}


def carriers(recorder: Recorder) -> dict[str, dict[str, Any]]:
    return {name: inputs for name, inputs in recorder.of("Container").items() if not inputs.get("start", True)}


def networks_of(container: dict[str, Any]) -> dict[str, list[str]]:
    return {network["name"]: network["aliases"] for network in container["networksAdvanced"]}


@pytest.mark.requirement("S1-03")
@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_service_is_a_container_behind_a_gate(run: Run, env: str, preview: bool) -> None:
    recorder = run(load_settings(ROOT, env), preview=preview)
    nodes = {f"qdrant-{number}" for number in range(NODES[env])}
    others = {"postgres", "redis", "prometheus", "alertmanager", "grafana"}
    exporters = {"node-exporter", "redis-exporter", "postgres-exporter", "plinth-exporter", "plinth-backup"}
    assert set(containers(recorder)) == nodes | others | exporters
    assert set(recorder.of("Ready")) == {f"{name}-ready" for name in containers(recorder)}
    assert set(recorder.of("Settled")) == ({f"{name}-settled" for name in nodes} if len(nodes) > 1 else set())
    assert set(recorder.of("Database")) == {"database-digi_core", "database-lernmi", "database-beep_boop"}
    assert len(recorder.of("Collection")) == 9


@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_container_is_hardened(run: Run, env: str) -> None:
    for name, container in containers(run(load_settings(ROOT, env))).items():
        uid, _, gid = container["user"].partition(":")
        assert int(uid) > 0, name
        assert gid.isdigit(), name
        assert container["readOnly"] is True, name
        assert container["capabilities"] == {"drops": ["ALL"]}, name
        assert container["securityOpts"] == ["no-new-privileges:true"], name
        assert container["ulimits"] == [{"name": "nofile", "soft": 65536, "hard": 65536}], name
        assert container["restart"] == "unless-stopped", name
        assert container["logDriver"] == "json-file", name
        assert container["logOpts"] == {"max-size": "10m", "max-file": "3"}, name
        assert float(container["cpus"]) > 0, name
        assert container["memory"] > 0, name
        assert container["memorySwap"] == container["memory"], name
        assert not container.get("privileged"), name
        assert "networkMode" not in container, name
        assert all("noexec" in options and f"uid={uid}" in options for options in container["tmpfs"].values()), name
        assert container["destroyGraceSeconds"] > container["stopTimeout"] > 0, name


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_a_container_writes_to_its_volumes_alone_and_reads_its_config(run: Run, env: str) -> None:
    recorder = run(load_settings(ROOT, env))
    made = {inputs["name"] for inputs in recorder.of("Volume").values()}
    for name, container in containers(recorder).items():
        mounts = container.get("mounts", [])
        assert {mount["type"] for mount in mounts} <= {"volume"}, name
        assert {mount["source"] for mount in mounts} <= made, name
        config = [mount for mount in mounts if mount["target"] == "/etc/plinth"]
        assert all(mount["readOnly"] for mount in config), name
        assert len(config) == (0 if name == "node-exporter" else 1), name
    volumes = [
        {mount["target"]: mount["source"] for mount in container["mounts"] if not mount.get("readOnly")}
        for name, container in containers(recorder).items()
        if name.startswith("qdrant")
    ]
    assert volumes == [
        {
            "/qdrant/storage": f"plinth-test-qdrant-{number}-storage",
            "/qdrant/snapshots": f"plinth-test-qdrant-{number}-snapshots",
        }
        for number in range(NODES[env])
    ]


@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_ports_are_published_on_loopback_and_none_twice(run: Run, env: str) -> None:
    found = containers(run(load_settings(ROOT, env)))
    published = [port for container in found.values() for port in container["ports"]]
    assert {port["ip"] for port in published} == {"127.0.0.1"}
    assert len({port["external"] for port in published}) == len(published)
    assert 6335 not in {port["internal"] for port in published}


def test_an_address_that_is_set_is_where_ports_are_published(run: Run) -> None:
    recorder = run(parse({"target": "docker", "bind_address": "192.0.2.7"}, source="x"))
    assert {port["ip"] for c in containers(recorder).values() for port in c["ports"]} == {"192.0.2.7"}
    assert json.loads(recorder.of("Ready")["redis-ready"]["probe"])["host"] == "192.0.2.7"


def test_the_peers_have_a_network_of_their_own(run: Run) -> None:
    recorder = run(load_settings(ROOT, "cluster"))
    internal = {inputs["name"]: inputs["internal"] for inputs in recorder.of("Network").values()}
    assert internal == {"plinth-test": False, "plinth-test-qdrant-peers": True}
    for name, container in containers(recorder).items():
        peers = networks_of(container).get("plinth-test-qdrant-peers")
        assert peers == ([f"{name}.peers"] if name.startswith("qdrant") else None), name


def test_nodes_found_and_join_with_one_command_and_by_the_peers_network(run: Run) -> None:
    found = containers(run(load_settings(ROOT, "cluster")))
    for number in range(3):
        command = found[f"qdrant-{number}"]["command"]
        assert command[2:] == [
            *("--bootstrap", "http://qdrant-0.peers:6335"),
            *("--uri", f"http://qdrant-{number}.peers:6335"),
        ]
    alone = containers(run(load_settings(ROOT, "dev")))["qdrant-0"]["command"]
    assert "--bootstrap" not in alone


@pytest.mark.requirement("S1-07")
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_qdrant_is_process_one_and_says_itself_whether_it_is_ready(run: Run, env: str) -> None:
    recorder = run(load_settings(ROOT, env))
    for number in range(NODES[env]):
        container = containers(recorder)[f"qdrant-{number}"]
        assert container["entrypoints"] == ["./qdrant"]
        assert container["stopSignal"] == "SIGTERM"
        assert container["stopTimeout"] >= 60
        check = " ".join(container["healthcheck"]["tests"])
        assert "GET /readyz" in check
        assert "/dev/tcp/127.0.0.1/" in check
        assert "curl" not in check
        assert container["healthcheck"]["startPeriod"] == "5m0s"
    config = yaml.safe_load(files_of(recorder, "qdrant-config-files")["/etc/plinth/config.yaml"])
    assert config["telemetry_disabled"] is True
    assert config["cluster"]["enabled"] is (NODES[env] > 1)
    assert config["service"].get("enforce_internal_auth", False) is (NODES[env] > 1)


def files_of(recorder: Recorder, carrier: str) -> dict[str, str]:
    return {upload["file"]: upload["content"] for upload in to_plain(recorder.of("Container")[carrier])["uploads"]}


@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_secrets_are_in_uploaded_files_alone_and_those_are_marked(run: Run, env: str) -> None:
    recorder = run(load_settings(ROOT, env))
    uploaded = ""
    for carrier, inputs in carriers(recorder).items():
        plain = to_plain(inputs)
        assert {upload["permissions"] for upload in plain["uploads"]} == {"0400"}, carrier
        assert all(int(upload["owner"]) > 0 for upload in plain["uploads"]), carrier
        uploaded += json.dumps(plain["uploads"])
    assert SECRET in uploaded
    for name, (kind, inputs) in recorder.resources.items():
        if kind in ("Container", "Volume", "Network", "RemoteImage", "docker"):
            assert SECRET not in json.dumps(in_the_clear(inputs)), name
    for name, container in containers(recorder).items():
        assert SECRET not in json.dumps(container), f"{name} has a secret outside a file"


@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_images_are_the_pinned_ones_and_stay_on_the_engine(run: Run, env: str) -> None:
    recorder = run(load_settings(ROOT, env))
    images = recorder.of("RemoteImage")
    assert {inputs["name"] for inputs in images.values()} == {PINS[name.removeprefix("image-")] for name in images}
    assert all(inputs["keepLocally"] for inputs in images.values())
    assert {c["image"] for c in containers(recorder).values()} == {f"sha256:{name}" for name in images}


def test_a_mirror_an_override_and_another_version_change_the_references(run: Run) -> None:
    recorder = run(
        parse(
            {
                "target": "docker",
                "qdrant": {"version": "1.18.4"},
                "docker": {"registry_mirror": "r.test:5000/hub/", "images": {"redis": "r.test/own/redis:7.4.9"}},
            },
            source="x",
        )
    )
    names = {name: inputs["name"] for name, inputs in recorder.of("RemoteImage").items()}
    assert names["image-qdrant"] == "r.test:5000/hub/qdrant/qdrant:v1.18.4-unprivileged"
    assert names["image-redis"] == "r.test/own/redis:7.4.9"
    assert names["image-postgres-exporter"].startswith("r.test:5000/hub/prometheuscommunity/postgres-exporter:v")


def test_an_override_of_an_image_that_there_is_not_is_a_sentence(run: Run) -> None:
    with pytest.raises(UserError, match="names 'qdrnt', which is no image of"):
        run(parse({"target": "docker", "docker": {"images": {"qdrnt": "a/b:1"}}}, source="x"))


def test_without_its_image_plinths_own_exporter_is_left_out_and_not_scraped(run: Run, engine: Engine) -> None:
    engine.images = {}
    recorder = run(load_settings(ROOT, "dev"))
    assert not {"plinth-exporter", "plinth-backup"} & set(containers(recorder))
    assert "plinth-exporter" not in files_of(recorder, "prometheus-config-files")["/etc/plinth/prometheus.yml"]


def test_plinths_own_exporter_asks_with_the_read_only_key_and_keeps_state(run: Run) -> None:
    recorder = run(load_settings(ROOT, "dev"))
    exporter = containers(recorder)["plinth-exporter"]
    assert exporter["entrypoints"] == ["python3", "-m", "plinth.exporter"]
    assert {mount["target"] for mount in exporter["mounts"]} == {"/etc/plinth", "/var/lib/plinth/state"}
    files = files_of(recorder, "plinth-exporter-config-files")
    config = Config.model_validate(yaml.safe_load(files["/etc/plinth/config.yaml"]))
    assert config.qdrant.url == "http://plinth-test-qdrant-0:6333"
    assert str(config.qdrant.api_key_file) == "/etc/plinth/qdrant_read_only_api_key.secret"
    assert str(config.marks).startswith("/var/lib/plinth/state/")


@pytest.mark.requirement("S1-06")
def test_the_backup_container_leaves_its_results_where_the_exporter_looks(run: Run) -> None:
    recorder = run(load_settings(ROOT, "cluster"))
    found = containers(recorder)
    mounts = {name: {m["target"]: m["source"] for m in found[name]["mounts"]} for name in found}
    state = "plinth-test-plinth-exporter-state"
    assert (
        mounts["plinth-backup"]["/var/lib/plinth/state"] == mounts["plinth-exporter"]["/var/lib/plinth/state"] == state
    )
    assert mounts["plinth-backup"]["/var/lib/plinth/work"] == "plinth-test-plinth-backup-work"
    files = files_of(recorder, "plinth-backup-config-files")
    config = BackupConfig.model_validate(yaml.safe_load(files["/etc/plinth/config.yaml"]))
    assert str(config.state).startswith("/var/lib/plinth/state/")
    assert config.repository.location == "/var/lib/plinth/repository"
    assert list(config.qdrant.urls) == [f"http://plinth-test-qdrant-{number}:6433" for number in range(3)]
    assert {str(path) for path in (config.repository.password_file, config.qdrant.api_key_file)} <= set(files)


def test_without_an_exporter_backups_keep_their_results_themselves(run: Run) -> None:
    recorder = run(parse({"target": "docker", "monitoring": {"exporters": {"enabled": False}}}, source="x"))
    files = files_of(recorder, "plinth-backup-config-files")
    config = BackupConfig.model_validate(yaml.safe_load(files["/etc/plinth/config.yaml"]))
    assert str(config.state).startswith("/var/lib/plinth/work/")


@pytest.mark.requirement("S1-11")
def test_the_tier_sets_the_limits(run: Run) -> None:
    def limits(tier: str) -> tuple[str, int]:
        node = containers(run(parse({"target": "docker", "tier": tier}, source="x")))["qdrant-0"]
        return node["cpus"], node["memory"]

    assert limits("small") == ("1", 2048)
    assert limits("medium") == ("4", 8192)
    assert limits("large") == ("8", 16384)


def test_prometheus_scrapes_every_node(run: Run) -> None:
    config = yaml.safe_load(
        files_of(run(load_settings(ROOT, "cluster")), "prometheus-config-files")["/etc/plinth/prometheus.yml"]
    )
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert jobs["qdrant"] == [f"plinth-test-qdrant-{number}:6433" for number in range(3)]
    assert jobs["redis-exporter"] == ["plinth-test-redis-exporter:9221"]


def test_each_node_is_reached_on_a_port_of_its_own(run: Run) -> None:
    recorder = run(load_settings(ROOT, "cluster"))
    probes = [json.loads(recorder.of("Ready")[f"qdrant-{number}-ready"]["probe"]) for number in range(3)]
    assert [(probe["host"], probe["port"]) for probe in probes] == [("127.0.0.1", 6433 + 10 * n) for n in range(3)]


def test_a_node_more_leaves_the_volumes_of_the_others_alone(run: Run) -> None:
    def volumes(nodes: int) -> set[str]:
        settings = parse(
            {"target": "docker", "qdrant": {"nodes": nodes, "replication_factor": min(nodes, 2)}}, source="x"
        )
        return {i["name"] for name, i in run(settings).of("Volume").items() if "-config" not in name}

    assert volumes(1) < volumes(3) < volumes(4)


def test_two_stacks_share_no_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    def names(env: str, settings: Settings) -> set[str]:
        recorder = declare(settings, tmp_path_factory.mktemp(env), env=env)
        return {
            to_plain(inputs)["name"]
            for kind in ("Container", "Network", "Volume")
            for inputs in recorder.of(kind).values()
        }

    settings = load_settings(ROOT, "dev")
    assert not names("one", settings) & names("two", settings)


@pytest.mark.requirement("S1-07")
def test_tls_is_on_for_clients_and_peers_and_for_everyone_who_asks(run: Run) -> None:
    settings = parse({"target": "docker", "qdrant": {"nodes": 3, "replication_factor": 2, "tls": {}}}, source="x")
    recorder = run(settings)
    config = yaml.safe_load(files_of(recorder, "qdrant-config-files")["/etc/plinth/config.yaml"])
    assert config["service"]["enable_tls"] is True
    assert config["cluster"]["p2p"]["enable_tls"] is True
    files = files_of(recorder, "qdrant-config-files")
    assert {config["tls"][part] for part in ("cert", "key", "ca_cert")} < set(files)
    node = containers(recorder)["qdrant-1"]
    assert node["command"][2:] == ["--bootstrap", "https://qdrant-0.peers:6335", "--uri", "https://qdrant-1.peers:6335"]
    assert json.loads(recorder.of("Ready")["qdrant-1-ready"]["probe"])["tls"] is True
    assert all(url.startswith("https://") for url in json.loads(recorder.of("Settled")["qdrant-0-settled"]["urls"]))
    assert {inputs["url"] for inputs in recorder.of("Collection").values()} == {"https://127.0.0.1:6333"}
    hosts = json.loads(recorder.of("Certificate")["qdrant-certificate"]["hosts"])
    assert {"127.0.0.1", "qdrant", "qdrant-2", "qdrant-2.peers", "plinth-test-qdrant-2"} <= set(hosts)
    scraped = yaml.safe_load(files_of(recorder, "prometheus-config-files")["/etc/plinth/prometheus.yml"])
    job = next(job for job in scraped["scrape_configs"] if job["job_name"] == "qdrant")
    assert job["scheme"] == "https"
    assert job["tls_config"]["ca_file"] in files_of(recorder, "prometheus-config-files")


def test_given_certificates_are_uploaded_and_one_that_is_missing_is_a_sentence(run: Run, tmp_path: Path) -> None:
    pair = issue(make_authority("given"), "q", ["q.test"])
    (tmp_path / "c.pem").write_text(pair.cert)
    (tmp_path / "k.pem").write_text(pair.key)
    tls = {"cert": str(tmp_path / "c.pem"), "key": str(tmp_path / "k.pem")}
    recorder = run(parse({"target": "docker", "qdrant": {"tls": tls}}, source="x"))
    files = files_of(recorder, "qdrant-config-files")
    assert files["/etc/plinth/qdrant_tls_key.secret"] == pair.key
    assert not recorder.of("Certificate")
    (tmp_path / "k.pem").unlink()
    with pytest.raises(UserError, match="which cannot be read"):
        run(parse({"target": "docker", "qdrant": {"tls": tls}}, source="x"))


@pytest.mark.requirement("S4-08")
def test_what_containers_print_goes_to_the_agent_by_the_engine_and_nothing_of_the_host_is_mounted(run: Run) -> None:
    settings = load_settings(ROOT, "cluster")
    loki = settings.monitoring.loki.model_copy(update={"enabled": True, "port": 3110})
    monitoring = settings.monitoring.model_copy(update={"loki": loki})
    recorder = run(settings.model_copy(update={"monitoring": monitoring}))
    found = containers(recorder)
    # Their own words would go in circles.
    assert {name for name, container in found.items() if container["logDriver"] == "json-file"} == {
        "loki",
        "fluent-bit",
    }
    for name in found.keys() - {"loki", "fluent-bit"}:
        options = found[name]["logOpts"]
        assert options["fluentd-address"] == "tcp://127.0.0.1:24224", name
        # One that starts or stops before the agent does not wait for it.
        assert options["fluentd-async"] == "true", name
        assert options["tag"] == f"{'qdrant' if name.startswith('qdrant') else name}.{name}"
    agent = found["fluent-bit"]
    assert {mount["type"] for mount in agent["mounts"]} == {"volume"}
    assert {mount["target"]: mount["source"] for mount in agent["mounts"] if mount.get("readOnly")} == {
        "/etc/plinth": next(mount["source"] for mount in agent["mounts"] if mount["target"] == "/etc/plinth"),
        **{f"/read/qdrant-{number}/audit": f"plinth-test-qdrant-{number}-audit" for number in range(3)},
    }
    for number in range(3):
        mounts = {mount["target"]: mount["source"] for mount in found[f"qdrant-{number}"]["mounts"]}
        assert mounts["/var/tmp"] == f"plinth-test-qdrant-{number}-audit"


def test_the_agents_intake_is_on_loopback_wherever_ports_are_published(run: Run) -> None:
    values = {"target": "docker", "bind_address": "192.0.2.7", "monitoring": {"loki": {"enabled": True}}}
    agent = containers(run(parse(values, source="x")))["fluent-bit"]
    assert {port["internal"]: port["ip"] for port in agent["ports"]} == {2020: "192.0.2.7", 24224: "127.0.0.1"}
