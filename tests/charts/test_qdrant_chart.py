"""charts/qdrant: what is particular to it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from plinth.programs import qdrant
from plinth.services import qdrant as qd
from plinth.services.render import files
from plinth.settings import Settings
from plinth.settings.tiers import SIZES, Tier
from tests.charts.rendering import CHARTS, Object, Place, needs_helm, objects, of, one, pods, text
from tests.conftest import ROOT

pytestmark = needs_helm
KEYS = {"auth": {"existingSecret": "keys"}}
TWICE = {"config": {"storage": {"collection": {"replication_factor": 2}}}}
CLUSTER = {**KEYS, **TWICE, "replicas": 3}
DEBUG = {"log_level": "DEBUG"}
TLS = {"tls": {"enabled": True, "existingSecret": "tls"}}
CONFIG = "plinth.dev/config"
FROM_SECRET = {"api_key", "read_only_api_key"}


class Pod(Place):
    files = {
        f"{name}.secret": f"/etc/plinth-tls/{path}"
        for name, path in ((qd.TLS_CERT, "cert.pem"), (qd.TLS_KEY, "key.pem"), (qd.TLS_CA, "ca.pem"))
    }

    def peer(self, service: str, node: int, port: str) -> str:
        return f"{service}-{node}:{port}"

    def file(self, service: str, name: str) -> str:
        return self.files[name]

    def volume(self, service: str, name: str) -> str:
        return qdrant.CONTAINER.volumes[name]


def configured(found: list[Object]) -> dict[str, Any]:
    template = one(found, "StatefulSet")["spec"]["template"]
    config: dict[str, Any] = yaml.safe_load(template["metadata"]["annotations"][CONFIG])
    return config


@pytest.mark.requirement("S1-07")
@pytest.mark.parametrize(
    ("values", "settings"),
    [
        (KEYS, {}),
        ({"auth": {"enabled": False}}, {"auth": False}),
        ({**KEYS, "service": {"httpPort": 7000, "grpcPort": 7001}}, {"http_port": 7000, "grpc_port": 7001}),
        ({**KEYS, **TLS}, {"tls": {}}),
        (CLUSTER, {"nodes": 3, "replication_factor": 2}),
        ({**CLUSTER, **TLS}, {"nodes": 3, "replication_factor": 2, "tls": {}}),
    ],
)
def test_its_configuration_says_what_the_other_targets_say(values: dict[str, Any], settings: dict[str, Any]) -> None:
    """But for the keys, which come from the environment here."""
    service = qd.service(Settings.model_validate({"target": "docker", "qdrant": settings}))
    secrets = {qd.API_KEY: "k", qd.READ_ONLY_API_KEY: "r", qd.TLS_CERT: "", qd.TLS_KEY: "", qd.TLS_CA: ""}
    wanted = yaml.safe_load(files(service, Pod(), secrets, ROOT)["config.yaml"])
    wanted["service"] = {key: value for key, value in wanted["service"].items() if key not in FROM_SECRET}
    assert configured(objects("qdrant", values)) == wanted


@pytest.mark.requirement("S1-11")
@pytest.mark.parametrize("tier", list(Tier))
def test_its_tiers_are_those_of_the_settings(tier: Tier) -> None:
    limits = container(objects("qdrant", {**KEYS, "tier": tier.value}))["resources"]["limits"]
    assert float(limits["cpu"]) == SIZES[tier].cpus
    assert limits["memory"] == f"{SIZES[tier].memory_mib // 1024}Gi"


def container(found: list[Object]) -> Object:
    spec: Object = one(found, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    return spec


def stateful_set(values: dict[str, Any]) -> Object:
    spec: Object = one(objects("qdrant", values), "StatefulSet")["spec"]
    return spec


def test_qdrant_is_process_1_and_has_time_to_stop() -> None:
    alone = container(objects("qdrant", KEYS))
    assert alone["command"][:2] == ["bash", "-c"]
    assert alone["command"][2].endswith('exec ./qdrant "$@"')
    assert (CHARTS / "qdrant/files/start.sh").read_text().count('exec "$QDRANT"') == 1
    assert stateful_set(KEYS)["template"]["spec"]["terminationGracePeriodSeconds"] > 60
    assert alone["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]


def test_nodes_start_together_and_have_names_before_they_are_ready() -> None:
    found = objects("qdrant", CLUSTER)
    spec = one(found, "StatefulSet")["spec"]
    headless = one(found, "Service", "r-qdrant-headless")
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["serviceName"] == headless["metadata"]["name"]
    assert headless["spec"]["publishNotReadyAddresses"] is True
    assert headless["spec"]["clusterIP"] == "None"
    environment = {entry["name"]: entry for entry in container(found)["env"]}
    assert environment["PLINTH_HOSTS"]["value"] == "r-qdrant-%s.r-qdrant-headless"


def test_another_number_of_nodes_starts_no_node_again() -> None:
    three, five = stateful_set(CLUSTER), stateful_set({**CLUSTER, "replicas": 5})
    assert three["template"] == five["template"]
    assert one(objects("qdrant", {**CLUSTER, "replicas": 5}), "ConfigMap", "r-qdrant-nodes")["data"] == {"nodes": "5"}


def test_a_node_that_is_held_back_starts_again_with_the_configuration_that_it_had() -> None:
    """Its configuration is of its revision: no object beside the StatefulSet holds it."""
    before, after = (objects("qdrant", {**CLUSTER, "config": {**TWICE["config"], **more}}) for more in ({}, DEBUG))
    assert configured(before)["log_level"] == "INFO"
    assert configured(after)["log_level"] == "DEBUG"
    mounted = next(v for v in stateful_set(CLUSTER)["template"]["spec"]["volumes"] if v["name"] == "config")
    item = {"path": "config.yaml", "fieldRef": {"fieldPath": f"metadata.annotations['{CONFIG}']"}}
    assert mounted["downwardAPI"]["items"] == [item]
    beside = [[o for o in found if o["kind"] != "StatefulSet"] for found in (before, after)]
    assert beside[0] == beside[1]


def test_clients_are_not_given_the_port_of_the_nodes() -> None:
    ports = {port["port"] for port in one(objects("qdrant", CLUSTER), "Service", "r-qdrant")["spec"]["ports"]}
    assert ports == {6333, 6334}


def test_a_cluster_is_spread_and_has_a_budget_and_a_single_node_has_none() -> None:
    found = objects("qdrant", CLUSTER)
    assert one(found, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    pod = one(found, "StatefulSet")["spec"]["template"]["spec"]
    assert pod["topologySpreadConstraints"][0]["topologyKey"] == "topology.kubernetes.io/zone"
    assert "podAntiAffinity" in pod["affinity"]
    assert not [o for o in objects("qdrant", KEYS) if o["kind"] == "PodDisruptionBudget"]


@pytest.mark.parametrize("values", [KEYS, {**KEYS, **TLS}, CLUSTER, {**CLUSTER, **TLS}])
def test_probes_speak_as_the_port_does(values: dict[str, Any]) -> None:
    wanted = container(objects("qdrant", values))
    scheme = "HTTPS" if "tls" in values else "HTTP"
    paths = {"startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    for kind, path in paths.items():
        assert wanted[kind]["httpGet"] == {"path": path, "port": "http", "scheme": scheme}
    startup = wanted["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1800


def test_keys_come_from_the_secret_alone() -> None:
    entries = {entry["name"]: entry for entry in container(objects("qdrant", KEYS))["env"]}
    for name, key in (("API_KEY", "api-key"), ("READ_ONLY_API_KEY", "read-only-api-key")):
        wanted = {"secretKeyRef": {"name": "keys", "key": key}}
        assert entries[f"QDRANT__SERVICE__{name}"] == {"name": f"QDRANT__SERVICE__{name}", "valueFrom": wanted}
    without = objects("qdrant", {"auth": {"enabled": False}})
    assert not [entry for entry in container(without)["env"] if "KEY" in entry["name"]]


def test_a_whole_configuration_may_come_from_a_secret() -> None:
    found = objects("qdrant", {**KEYS, "existingConfigSecret": "mine"})
    volume = next(v for v in one(found, "StatefulSet")["spec"]["template"]["spec"]["volumes"] if v["name"] == "config")
    assert volume["secret"]["secretName"] == "mine"
    assert not [o for o in found if o["kind"] == "ConfigMap"]


def rules(values: dict[str, Any]) -> list[Object]:
    found: list[Object] = one(objects("qdrant", values), "NetworkPolicy")["spec"]["ingress"]
    return found


def reached(rule: Object) -> set[str]:
    return {port["port"] for port in rule["ports"]}


@pytest.mark.parametrize("more", [{}, {"allowAnyClient": True}, {"clients": [{"podSelector": {}}]}])
def test_only_nodes_reach_the_port_of_the_nodes(more: dict[str, Any]) -> None:
    nodes = {
        "app.kubernetes.io/name": "qdrant",
        "app.kubernetes.io/instance": "r",
        "app.kubernetes.io/component": "node",
    }
    values = {**CLUSTER, "networkPolicy": more}
    between = [rule for rule in rules(values) if reached(rule) & {"p2p", "founding"}]
    assert [rule["from"] for rule in between] == [[{"podSelector": {"matchLabels": nodes}}]]
    assert between[0]["ports"] == [{"port": port, "protocol": "TCP"} for port in ("p2p", "founding")]
    assert (
        nodes.items() <= one(objects("qdrant", values), "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    )
    test = one(objects("qdrant", values), "Pod")["metadata"]["labels"]
    assert not nodes.items() <= test.items()


def test_clients_are_let_in_by_their_label() -> None:
    clients = [rule for rule in rules(CLUSTER) if reached(rule) == {"http", "grpc"}]
    assert {"podSelector": {"matchLabels": {"r-qdrant-client": "true"}}} in clients[0]["from"]
    assert one(objects("qdrant", CLUSTER), "Pod")["metadata"]["labels"]["r-qdrant-client"] == "true"
    anyone = rules({**CLUSTER, "networkPolicy": {"allowAnyClient": True}})
    assert "from" not in next(rule for rule in anyone if reached(rule) == {"http", "grpc"})


def test_nodes_reach_each_other_and_the_name_service_alone() -> None:
    spec = one(objects("qdrant", CLUSTER), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert {port["port"] for port in spec["egress"][0]["ports"]} == {53, 5353}
    assert spec["egress"][1]["to"][0]["podSelector"]["matchLabels"] == spec["podSelector"]["matchLabels"]
    assert len(spec["egress"]) == 2


def test_each_node_is_scraped_once_with_the_read_only_key() -> None:
    found = of(CHARTS / "qdrant/ci/cluster-values.yaml")
    monitor = one(found, "ServiceMonitor")
    endpoint = monitor["spec"]["endpoints"][0]
    assert endpoint["scheme"] == "http"
    assert endpoint["authorization"]["credentials"] == {"name": "qdrant-keys", "key": "read-only-api-key"}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    chosen = [
        o["metadata"]["name"]
        for o in found
        if o["kind"] == "Service"
        and monitor["spec"]["selector"]["matchLabels"].items() <= o["metadata"]["labels"].items()
    ]
    assert chosen == ["r-qdrant-headless"]


def test_a_pod_monitor_checks_the_certificate() -> None:
    monitor = one(of(CHARTS / "qdrant/ci/tls-values.yaml"), "PodMonitor")
    endpoint = monitor["spec"]["podMetricsEndpoints"][0]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["ca"]["secret"] == {"name": "qdrant-tls", "key": "ca.crt"}
    labels = next(pod["metadata"]["labels"] for name, pod in pods(of(CHARTS / "qdrant/ci/tls-values.yaml")))
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_its_rules_are_those_of_the_stack() -> None:
    found = [o for o in of(CHARTS / "qdrant/ci/cluster-values.yaml") if o["kind"] == "PrometheusRule"]
    for rule in found:
        name = rule["metadata"]["name"].removeprefix("r-qdrant-")
        assert rule["spec"] == yaml.safe_load((ROOT / f"monitoring/prometheus/rules/{name}.yml").read_text())
    assert len(found) == 2


def test_routes_lead_to_the_port_of_their_protocol() -> None:
    found = of(CHARTS / "qdrant/ci/tls-values.yaml")
    for kind, port in (("HTTPRoute", 6333), ("GRPCRoute", 6334)):
        route = one(found, kind)["spec"]
        assert route["parentRefs"] == [{"name": "gateway"}]
        assert route["rules"][0]["backendRefs"] == [{"name": "r-qdrant", "port": port}]
    ingress = one(of(CHARTS / "qdrant/ci/extras-values.yaml"), "Ingress")["spec"]
    assert ingress["tls"] == [{"hosts": ["qdrant.example.org"], "secretName": "qdrant-example-org"}]
    assert ingress["rules"][0]["http"]["paths"][0]["backend"]["service"] == {
        "name": "vectors",
        "port": {"name": "http"},
    }


def test_what_is_extra_is_where_it_belongs() -> None:
    found = of(CHARTS / "qdrant/ci/extras-values.yaml")
    pod = one(found, "StatefulSet")["spec"]["template"]
    assert [c["name"] for c in pod["spec"]["initContainers"] + pod["spec"]["containers"]] == [
        "before",
        "qdrant",
        "beside",
    ]
    assert pod["spec"]["containers"][0]["image"].startswith("registry.example.org/hub/qdrant/qdrant@sha256:")
    assert pod["spec"]["containers"][0]["args"][-1] == "--disable-telemetry"
    assert one(found, "ConfigMap", "vectors-map")["data"] == {"release": "r"}
    assert one(found, "ConfigMap", "vectors-text")["data"] == {"release": "r"}


def test_long_names_are_cut_so_that_what_is_made_of_them_fits() -> None:
    found = [o for o in yaml.safe_load_all(text("qdrant", "auth: {existingSecret: k}", "r" * 53)) if o]
    assert max(len(o["metadata"]["name"]) for o in found) <= 52
    assert len(f"snapshots-{one(found, 'StatefulSet')['metadata']['name']}-99") <= 63
