"""`dev` and `cluster` under Pulumi's mocks: every line of hardening, every network, port, volume, image and limit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import get_args

import pytest
import yaml

from plinth.errors import UserError
from plinth.settings import Settings
from plinth.settings.loader import load_settings, parse
from plinth.settings.targets import Publishable
from plinth.targets.images import by_digest
from tests.conftest import ROOT
from tests.containers.wire import to_plain
from tests.program.docker_declared import ENVIRONMENTS, NODES, PINS, containers, files_of, networks_of
from tests.program.recorder import Recorder, declare

pytestmark = pytest.mark.usefixtures("engine")
Run = Callable[..., Recorder]


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
    assert set(recorder.of("ClusterReady")) == (
        {f"{name}-cluster-ready" for name in nodes} if len(nodes) > 1 else set()
    )
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
        assert container["ulimits"] == [
            {"name": "nofile", "soft": 65536, "hard": 65536},
            {"name": "nproc", "soft": 4096, "hard": 4096},
        ], name
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
        # What the kernel counts is all that anybody sees of the engine's machine.
        of_the_machine = [mount for mount in mounts if mount["type"] != "volume"]
        cgroups = {"type": "bind", "source": "/sys/fs/cgroup", "target": "/read/cgroup", "readOnly": True}
        assert of_the_machine == ([cgroups] if name == "plinth-exporter" else []), name
        assert {mount["source"] for mount in mounts if mount["type"] == "volume"} <= made, name
        config = [mount for mount in mounts if mount["target"] == "/etc/plinth"]
        assert all(mount["readOnly"] for mount in config), name
        assert len(config) == 1, name
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


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_the_backups_read_grafanas_volume_by_its_group_and_nobody_else_is_in_one(run: Run, env: str) -> None:
    found = containers(run(load_settings(ROOT, env)))
    assert {name: about["groupAdds"] for name, about in found.items() if "groupAdds" in about} == {
        "plinth-backup": ["0"]
    }
    (mount,) = [each for each in found["plinth-backup"]["mounts"] if each["source"].endswith("grafana-data")]
    assert mount == {
        "type": "volume",
        "source": "plinth-test-grafana-data",
        "target": "/read/grafana/data",
        "readOnly": True,
    }


@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_ports_are_published_on_loopback_and_none_twice(run: Run, env: str) -> None:
    found = containers(run(load_settings(ROOT, env)))
    published = [port for container in found.values() for port in container["ports"]]
    assert {port["ip"] for port in published} == {"127.0.0.1"}
    assert len({port["external"] for port in published}) == len(published)
    assert 6335 not in {port["internal"] for port in published}


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.7"])
@pytest.mark.parametrize("publish", [["redis"], ["qdrant", "grafana"], list(get_args(Publishable))])
def test_an_address_that_is_set_is_where_named_services_are_published_and_no_other(
    run: Run, address: str, publish: list[str]
) -> None:
    values = {
        "target": "docker",
        "bind_address": address,
        "docker": {"publish": publish},
        "neo4j": {"enabled": True},
        "gateway": {"enabled": True},
        "monitoring": {"loki": {"enabled": True}},
    }
    recorder = run(parse(values, source="x"))
    found = {
        name.removesuffix("-0"): {port["ip"] for port in container["ports"]}
        for name, container in containers(recorder).items()
    }
    assert set(publish) | {"prometheus", "alertmanager", "loki", "fluent-bit", "redis-exporter"} <= set(found)
    assert found == {name: {address if name in publish else "127.0.0.1"} for name in found}
    hosts = {
        name: json.loads(inputs["probe"])["host"] for name, inputs in recorder.of("Ready").items() if "ready" in name
    }
    reached = "127.0.0.1" if address == "0.0.0.0" else address
    assert hosts["prometheus-ready"] == "127.0.0.1"
    assert hosts["redis-ready"] == (reached if "redis" in publish else "127.0.0.1")


@pytest.mark.parametrize(
    "name", ["prometheus", "alertmanager", "loki", "node-exporter", "plinth-backup", "fluent-bit", "gateway-worker"]
)
def test_what_has_no_accounts_can_not_be_published(name: str) -> None:
    with pytest.raises(UserError, match=r"docker\.publish"):
        parse({"target": "docker", "bind_address": "0.0.0.0", "docker": {"publish": [name]}}, source="x")


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


@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_images_are_the_pinned_ones_and_stay_on_the_engine(run: Run, env: str) -> None:
    recorder = run(load_settings(ROOT, env))
    images = recorder.of("RemoteImage")
    assert {inputs["name"] for inputs in images.values()} == {
        by_digest(PINS[name.removeprefix("image-")]) for name in images
    }
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
    assert names["image-postgres-exporter"].startswith("r.test:5000/hub/prometheuscommunity/postgres-exporter@sha256:")


def test_an_override_of_an_image_that_there_is_not_is_a_sentence(run: Run) -> None:
    with pytest.raises(UserError, match="names 'qdrnt', which is no image of"):
        run(parse({"target": "docker", "docker": {"images": {"qdrnt": "a/b:1"}}}, source="x"))


def test_the_gateway_is_two_containers_of_the_own_image_with_a_database(run: Run) -> None:
    gateway = {"enabled": True, "tls": {}, "memory_mib": 640}
    recorder = run(parse({"target": "docker", "qdrant": {"tls": {}}, "gateway": gateway}, source="x"))
    found = containers(recorder)
    assert "database-plinth_gateway" in recorder.of("Database")
    for name, role, ports in (("gateway", "server", {8000, 8001}), ("gateway-worker", "worker", {8002})):
        container = found[name]
        assert container["image"] == found["plinth-exporter"]["image"]
        assert container["entrypoints"] == ["python3", "-m", "plinth.gateway"]
        assert container["command"] == [role, "--config-path", "/etc/plinth/gateway.yaml"]
        assert (container["memory"], container["cpus"]) == (640, "1.0")
        assert {port["internal"] for port in container["ports"]} == ports
        config = yaml.safe_load(files_of(recorder, f"{name}-config-files")["/etc/plinth/gateway.yaml"])
        stores = (config["qdrant"]["url"], config["postgres"]["host"], config["redis"]["host"])
        assert stores == ("https://plinth-test-qdrant-0:6333", "plinth-test-postgres", "plinth-test-redis")
        assert {mount["target"] for mount in container["mounts"]} == {"/etc/plinth", "/var/lib/plinth/audit"}
    probe = json.loads(recorder.of("Ready")["gateway-ready"]["probe"])
    assert (probe["path"], probe["tls"]) == ("/readyz", True)


@pytest.mark.requirement("S1-11")
def test_the_tier_sets_the_limits(run: Run) -> None:
    def limits(tier: str) -> tuple[str, int]:
        node = containers(run(parse({"target": "docker", "tier": tier}, source="x")))["qdrant-0"]
        return node["cpus"], node["memory"]

    assert limits("small") == ("1.0", 2048)
    assert limits("medium") == ("4.0", 8192)
    assert limits("large") == ("8.0", 16384)


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


def test_a_version_with_a_published_hole_is_refused_before_anything_is_declared(run: Run) -> None:
    old = {"target": "docker", "docker": {"images": {"redis": "r.test/redis:7.4.5"}}}
    with pytest.raises(UserError, match="has CVE-2025-49844"):
        run(parse(old, source="x"))
    accepted = {"accepted_advisories": {"CVE-2025-49844": "r.test mends it", "CVE-2026-23479": "likewise"}}
    assert "image-redis" in run(parse(old | accepted, source="x")).of("RemoteImage")
