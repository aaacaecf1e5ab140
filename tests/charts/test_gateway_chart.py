"""The gateway on Kubernetes: configured as elsewhere, let in where it has to be, each part with its own keys."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from plinth.gateway.config import GatewayConfig
from plinth.services import gateway
from plinth.services.project_files import collection_specs
from plinth.services.render import files
from plinth.settings.loader import parse
from plinth.targets.kubernetes.naming import object_name
from plinth.targets.kubernetes.target import KubernetesTarget
from tests.charts.rendering import Place, needs_helm, pods
from tests.charts.test_environments import SETTINGS, of, secrets_read, target
from tests.conftest import ROOT

pytestmark = needs_helm
GATEWAYS: dict[str, dict[str, Any]] = {
    "for development": {},
    "with an identity provider": {
        "tls": {},
        "tokens": {"jwks": "https://id.test/keys", "issuer": "https://id.test", "audience": "a"},
        "provider": {"name": "http", "url": "http://models.test:9000/v1", "model": "m", "api_key": "k", "dimension": 8},
        "tracing": {"endpoint": "http://collector.test:4318", "sample_ratio": 0.5, "headers": "x-key=k"},
        "cache_ttl_sec": 2.5,
        "audit_required": True,
        "request_max_mb": 1024,
        "requests_per_second": 100000000,
    },
}
# Where the chart has what the other targets have in files of their secrets' names.
GATEWAY_FILES = {
    "qdrant_api_key": "qdrant-api-key",
    "qdrant_tls_ca": "qdrant-ca",
    "postgres_plinth_gateway_password": "postgres-password",
    "redis_password": "redis-password",
    "gateway_provider_key": "provider-api-key",
    "gateway_tracing_headers": "tracing-headers",
    "gateway_signing_key": "signing-key",
    "gateway_metrics_token": "metrics-token",
    "gateway_tls_cert": "tls.crt",
    "gateway_tls_key": "tls.key",
}


class GatewayPlace(Place):
    """As the target has it, with the secrets where the chart has them."""

    def __init__(self, made: KubernetesTarget, paths: dict[str, str]) -> None:
        self.made, self.paths = made, paths

    def address(self, service: str, port: str) -> str:
        return self.made.address(service, port)

    def file(self, service: str, name: str) -> str:
        return self.paths[name]

    def volume(self, service: str, name: str) -> str:
        return "/audit"


@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize("values", GATEWAYS.values(), ids=GATEWAYS)
@pytest.mark.parametrize("tls", [None, {}], ids=["clear", "tls"])
def test_the_gateway_is_configured_as_elsewhere_and_its_worker_holds_no_key_that_admits_callers(
    values: dict[str, Any], tls: dict[str, Any] | None
) -> None:
    images = {"plinth": "registry.test/plinth:0.1.0"}
    given = {"qdrant": {"tls": tls, "jwt_rbac": tls is not None}, "gateway": {"enabled": True, **values}}
    made = target(parse({"target": "kubernetes", "kubernetes": {"images": images}, **given}, source="x"))
    beside = parse({"target": "docker", **given}, source="x")
    paths = {f"{name}.secret": f"/etc/plinth-secrets/{path}" for name, path in GATEWAY_FILES.items()}
    for service in gateway.services(beside, collection_specs(beside, ROOT)):
        text = of("ConfigMap", made)[f"{object_name(service.name)}-config"]["data"]["gateway.yaml"]
        found = GatewayConfig.model_validate(yaml.safe_load(text))
        written = files(service, GatewayPlace(made, paths), dict.fromkeys(service.secret_files, ""), ROOT)
        other = yaml.safe_load(written["gateway.yaml"])
        wanted = GatewayConfig.model_validate({**other, "audit": {"required": beside.gateway.audit_required}})
        assert found == wanted, service.name
        # Tokens of a collection are for a server that takes them.
        node = yaml.safe_dump(of("StatefulSet", made)["qdrant"])
        assert found.qdrant.collection_tokens == ("jwt_rbac" in node) == (tls is not None)
    ((_, server),) = pods([of("Deployment", made)["gateway"]])
    ((_, worker),) = pods([of("Deployment", made)["gateway-worker"]])
    held = {made.secrets()[secret][key] for secret, key in secrets_read(worker)}
    assert not {"gateway_signing_key", "gateway_metrics_token", *gateway.TLS} & held
    assert secrets_read(worker) <= secrets_read(server)


def test_the_gateway_asks_stores_that_someone_else_runs_by_their_own_ways() -> None:
    elsewhere = {
        "qdrant_url": "https://q.test:6333",
        "qdrant_grpc_url": "https://q.test:7334",
        "postgres_url": "postgresql://admin@pg.test:6432",
        "redis_url": "rediss://r.test:6380",
    }
    values = {
        "kubernetes": {"images": {"plinth": "registry.test/plinth:0.1.0"}, "managed": elsewhere},
        "qdrant": {"api_key": "a", "read_only_api_key": "b"},
        "gateway": {"enabled": True},
    }
    made = target(parse({"target": "kubernetes", **values}, source="x"))
    found = yaml.safe_load(of("ConfigMap", made)["gateway-config"]["data"]["gateway.yaml"])
    assert found["qdrant"]["url"] == "https://q.test:6333"
    assert (found["postgres"]["host"], found["postgres"]["port"]) == ("pg.test", 6432)
    assert (found["redis"]["host"], found["redis"]["port"], found["redis"]["tls"]) == ("r.test", 6380, True)
    rules = of("NetworkPolicy", made)["gateway"]["spec"]["egress"]
    allowed = {port["port"] for rule in rules for port in rule.get("ports", []) if "to" not in rule}
    assert {6333, 7334, 6432, 6380} <= allowed


@pytest.mark.requirement("S1-14")
def test_the_gateway_is_let_in_to_its_stores_and_lets_in_who_takes_its_metrics() -> None:
    made = target(SETTINGS["with-backups-in-a-bucket"])
    policies = of("NetworkPolicy", made)
    for name in ("gateway", "gateway-worker"):
        ((_, pod),) = pods([of("Deployment", made)[name]])
        for store in ("qdrant", "postgres", "redis"):
            assert lets_in(policies[store], pod), (name, store)
        ((_, prometheus),) = pods([of("StatefulSet", made)["monitoring-prometheus"]])
        assert lets_in(policies[name], prometheus), name
    ((_, worker),) = pods([of("Deployment", made)["gateway-worker"]])
    assert not lets_in(policies["gateway"], worker)
    config = yaml.safe_load(of("ConfigMap", made)["monitoring-prometheus-config"]["data"]["prometheus.yml"])
    named = of("Service", made)
    for job in (job for job in config["scrape_configs"] if job["job_name"].startswith("gateway")):
        ((asked,),) = (about["names"] for about in job["dns_sd_configs"])
        # Each pod's address is had of a Service without one of its own.
        assert named[asked]["spec"]["clusterIP"] == "None"
        # One that does not get ready is asked too, and found to be down.
        assert named[asked]["spec"]["publishNotReadyAddresses"] is True
        assert job["dns_sd_configs"][0]["port"] in {port["port"] for port in named[asked]["spec"]["ports"]}


def lets_in(policy: dict[str, Any], pod: dict[str, Any]) -> bool:
    """Whether a policy lets a pod of its namespace in to a port called http, or to its only one."""
    labels = pod["metadata"]["labels"]
    return any(
        peer.get("podSelector", {}).get("matchLabels", {"": ""}).items() <= labels.items()
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
    )
