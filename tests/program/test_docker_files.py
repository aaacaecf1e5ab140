"""What the containers of `dev` and `cluster` read and write, under Pulumi's mocks: config files, secrets, logs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from plinth.backup.config import Config as BackupConfig
from plinth.errors import UserError
from plinth.exporter.config import Config
from plinth.settings.loader import load_settings, parse
from plinth.system.tls import issue, make_authority
from tests.conftest import ROOT
from tests.containers.scripted import Engine
from tests.containers.upstream import UPSTREAM
from tests.containers.wire import in_the_clear, to_plain
from tests.program.docker_declared import ENVIRONMENTS, carriers, containers, files_of
from tests.program.recorder import SECRET, Recorder

pytestmark = pytest.mark.usefixtures("engine")
Run = Callable[..., Recorder]


@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_secrets_are_in_uploaded_files_alone_and_those_are_marked(run: Run, env: str) -> None:
    recorder = run(load_settings(ROOT, env))
    uploaded = ""
    for carrier, inputs in carriers(recorder).items():
        plain = to_plain(inputs)
        assert {upload["permissions"] for upload in plain["uploads"]} == {"0444"}, carrier
        # An engine before 28 refuses an upload with an owner, see `resources.loader`.
        assert not [upload for upload in plain["uploads"] if {"owner", "group"} & upload.keys()], carrier
        uploaded += json.dumps(plain["uploads"])
    assert SECRET in uploaded
    for name, (kind, inputs) in recorder.resources.items():
        if kind in ("Container", "Volume", "Network", "RemoteImage", "docker"):
            assert SECRET not in json.dumps(in_the_clear(inputs)), name
    for name, container in containers(recorder).items():
        assert SECRET not in json.dumps(container), f"{name} has a secret outside a file"


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_no_container_gets_a_volume_without_a_name(run: Run, env: str) -> None:
    """For each VOLUME of its image that a container mounts nothing at, the engine makes one that nobody knows."""
    wanted = load_settings(ROOT, env)
    recorder = run(wanted.model_copy(update={"neo4j": wanted.neo4j.model_copy(update={"enabled": True})}))
    made = containers(recorder) | {name: to_plain(inputs) for name, inputs in carriers(recorder).items()}
    covered = 0
    for name, inputs in made.items():
        key = inputs["image"].removeprefix("sha256:image-")
        for path in UPSTREAM[key].volumes if key in UPSTREAM else ():
            mounted = {mount["target"] for mount in inputs["mounts"]}
            assert path in mounted | inputs.get("tmpfs", {}).keys(), (name, path)
            covered += 1
    assert covered >= 10


def test_without_its_image_plinths_own_exporter_is_left_out_and_not_scraped(run: Run, engine: Engine) -> None:
    engine.images = {}
    recorder = run(load_settings(ROOT, "dev"))
    assert not {"plinth-exporter", "plinth-backup"} & set(containers(recorder))
    assert "plinth-exporter" not in files_of(recorder, "prometheus-config-files")["/etc/plinth/prometheus.yml"]


def test_plinths_own_exporter_asks_with_the_read_only_key_and_keeps_state(run: Run) -> None:
    recorder = run(load_settings(ROOT, "dev"))
    exporter = containers(recorder)["plinth-exporter"]
    assert exporter["entrypoints"] == ["python3", "-m", "plinth.exporter"]
    assert {mount["target"] for mount in exporter["mounts"]} == {
        *("/etc/plinth", "/var/lib/plinth/state", "/read/cgroup")
    }
    files = files_of(recorder, "plinth-exporter-config-files")
    config = Config.model_validate(yaml.safe_load(files["/etc/plinth/config.yaml"]))
    assert config.qdrant.url == "http://plinth-test-qdrant-0:6333"
    assert str(config.qdrant.api_key_file) == "/etc/plinth/qdrant_read_only_api_key.secret"
    assert str(config.marks).startswith("/var/lib/plinth/state/")


@pytest.mark.requirement("S0-05")
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_container_is_below_a_cgroup_by_which_the_exporter_knows_it(run: Run, env: str) -> None:
    recorder = run(load_settings(ROOT, env))
    files = files_of(recorder, "plinth-exporter-config-files")
    found = Config.model_validate(yaml.safe_load(files["/etc/plinth/config.yaml"])).cgroups
    assert found
    assert str(found.directory) == "/read/cgroup"
    below = {container["cgroupParent"]: name for name, container in containers(recorder).items()}
    assert below == {above: container.node for above, container in found.above.items()}
    assert below["plinth-test-qdrant_0.slice"] == "qdrant-0"
    assert found.above["plinth-test-qdrant_0.slice"].service == "qdrant"


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


@pytest.mark.requirement("S1-06")
def test_who_signed_for_the_repositorys_server_is_a_file_of_the_backup_container(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    backup = {"repository": "s3:https://s3.test/b", "ca_cert": str(tmp_path / "ca.pem")}
    files = files_of(run(parse({"target": "docker", "backup": backup}, source="x")), "plinth-backup-config-files")
    config = BackupConfig.model_validate(yaml.safe_load(files["/etc/plinth/config.yaml"]))
    assert files[str(config.repository.ca_file)] == "PEM"


def test_without_an_exporter_backups_keep_their_results_themselves(run: Run) -> None:
    recorder = run(parse({"target": "docker", "monitoring": {"exporters": {"enabled": False}}}, source="x"))
    files = files_of(recorder, "plinth-backup-config-files")
    config = BackupConfig.model_validate(yaml.safe_load(files["/etc/plinth/config.yaml"]))
    assert str(config.state).startswith("/var/lib/plinth/work/")


def test_prometheus_scrapes_every_node(run: Run) -> None:
    config = yaml.safe_load(
        files_of(run(load_settings(ROOT, "cluster")), "prometheus-config-files")["/etc/plinth/prometheus.yml"]
    )
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert jobs["qdrant"] == [f"plinth-test-qdrant-{number}:6433" for number in range(3)]
    assert jobs["redis-exporter"] == ["plinth-test-redis-exporter:9221"]


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
    assert all(
        url.startswith("https://") for url in json.loads(recorder.of("ClusterReady")["qdrant-0-cluster-ready"]["urls"])
    )
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
    assert "qdrant-certificate" not in recorder.of("Certificate")
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
        assert options["fluentd-request-ack"] == "true", name
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
    values = {
        "target": "docker",
        "bind_address": "192.0.2.7",
        "docker": {"publish": ["qdrant"]},
        "monitoring": {"loki": {"enabled": True}},
    }
    agent = containers(run(parse(values, source="x")))["fluent-bit"]
    assert {port["internal"]: port["ip"] for port in agent["ports"]} == {2020: "127.0.0.1", 24224: "127.0.0.1"}
