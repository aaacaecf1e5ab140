"""The values of each chart against its schema, for every environment and for settings of any kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, validators

from plinth.services.secrets import CHECKSUM_KEY, secrets
from plinth.settings import Settings
from plinth.settings.loader import load_settings, parse
from plinth.targets.content_digest import keyed
from plinth.targets.images import pins
from plinth.targets.kubernetes.store_values import image
from plinth.targets.kubernetes.target import KubernetesTarget
from tests.conftest import ROOT
from tests.services import plan_of

ENVIRONMENTS = ["staging", "prod"]
SECRETS = ["given-api-key", "given-read-only-key"]


def target(settings: Settings) -> KubernetesTarget:
    return plan_of(settings, ROOT).kubernetes_target


def refused(chart: str, values: dict[str, Any]) -> list[str]:
    schema = json.loads((ROOT / "charts" / chart / "values.schema.json").read_text())
    checker = validators.validator_for(schema, Draft202012Validator)
    checker.check_schema(schema)
    return [f"{error.json_path}: {error.message}" for error in checker(schema).iter_errors(values)]


@pytest.mark.requirement("S1-14")
def test_a_checksum_follows_its_secret_and_tells_nothing_without_the_environments_key() -> None:
    checksums = [keyed(secret, key) for secret in ("weak", "other") for key in ("of one", "of another")]
    assert len(set(checksums)) == 4
    assert checksums[0] == keyed("weak", "of one")
    assert secrets(parse({"target": "kubernetes"}, source="x"))[CHECKSUM_KEY] is None, "it is generated"
    assert CHECKSUM_KEY not in secrets(parse({"target": "local"}, source="x"))


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_environment_fits_the_schema_of_every_chart(env: str) -> None:
    made = target(load_settings(ROOT, env))
    for chart in made.charts():
        assert refused(chart, made.values(chart)) == [], chart


@st.composite
def any_settings(draw: st.DrawFn) -> Settings:
    nodes = draw(st.sampled_from([1, 3, 4, 7]))
    qdrant: dict[str, Any] = {
        "nodes": nodes,
        "replication_factor": draw(st.integers(1, nodes)),
        "allow_single_replica": True,
        "http_port": draw(st.integers(1024, 40000)),
        "disk_gib": draw(st.none() | st.integers(1, 4000)),
        "cpus": draw(st.none() | st.floats(0.25, 64).map(lambda cpus: round(cpus, 2))),
        "memory_mib": draw(st.none() | st.integers(512, 10**6)),
        "tls": draw(st.sampled_from([None, {}, {"cert": "a", "key": "b"}, {"cert": "a", "key": "b", "ca_cert": "c"}])),
        "audit": draw(st.none() | st.booleans()),
        "log_level": draw(st.sampled_from(["INFO", "DEBUG"])),
        "api_key": draw(st.sampled_from([None, SECRETS[0]])),
        "read_only_api_key": draw(st.sampled_from([None, SECRETS[1]])),
    }
    return parse(
        {
            "target": "kubernetes",
            "tier": draw(st.sampled_from(["small", "medium", "large"])),
            "kubernetes": {
                "namespace": draw(st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)),
                "storage_class": draw(st.sampled_from([None, "fast"])),
                "registry_mirror": draw(st.sampled_from([None, "registry.test:5000/hub"])),
                "images": draw(st.sampled_from([{}, {"qdrant": f"own/qdrant@sha256:{'0' * 64}"}])),
            },
            "qdrant": qdrant,
        },
        source="x",
    )


@given(any_settings())
def test_any_settings_fit_the_schema_and_no_secret_is_among_the_values(settings: Settings) -> None:
    made = target(settings)
    for chart in made.charts():
        values = made.values(chart)
        assert refused(chart, values) == []
        text = json.dumps(values)
        assert values == json.loads(text), "not plain data"
        assert not any(secret in text for secret in SECRETS)
    assert made.values("qdrant") == target(settings).values("qdrant")


@pytest.mark.requirement("S1-11")
def test_the_tier_the_ports_and_the_nodes_are_the_settings() -> None:
    values = target(load_settings(ROOT, "prod")).values("qdrant")
    assert values["resources"]["limits"] == {"cpu": "8", "memory": "16384Mi", "ephemeral-storage": "1Gi"}
    assert values["persistence"]["storage"]["size"] == "500Gi"
    assert values["replicas"] == values["updateStrategy"]["partition"] == 3
    assert values["auth"] == {"enabled": True, "existingSecret": "qdrant-keys", "altApiKeyKey": ""}
    single = target(parse({"target": "kubernetes"}, source="x")).values("qdrant")
    assert single["updateStrategy"]["partition"] == 0


@pytest.mark.requirement("S1-07")
def test_qdrants_configuration_is_that_of_the_other_targets_without_what_the_chart_says() -> None:
    config = target(parse({"target": "kubernetes", "qdrant": {"tls": {}, "wal_capacity_mb": 64}}, source="x")).values(
        "qdrant"
    )["config"]
    assert config["telemetry_disabled"] is True
    assert config["storage"]["wal"] == {"wal_capacity_mb": 64}
    assert config["service"] == {
        "max_request_size_mb": 32,
        "enable_cors": False,
        "enable_snapshot_url_recovery": False,
    }
    assert {"tls", "cluster", "audit"}.isdisjoint(config)


def test_the_audit_log_lies_with_the_storage() -> None:
    made = target(parse({"target": "kubernetes", "qdrant": {"audit": True}}, source="x"))
    assert made.values("qdrant")["config"]["audit"]["dir"] == "/qdrant/storage/audit"
    assert set(made.claims()["qdrant"]) == {"storage", "snapshots"}


@pytest.mark.parametrize(
    "reference", [*pins(ROOT).values(), f"docker.io/own/x@sha256:{'a' * 64}", "r.test:5000/x:1", "r.test/a/b/x:1"]
)
def test_an_image_reference_in_parts_is_the_same_image(reference: str) -> None:
    parts = image(reference)
    tag = f":{parts['tag']}" if "tag" in parts else ""
    digest = f"@{parts['digest']}" if "digest" in parts else ""
    assert f"{parts['registry']}/{parts['repository']}{tag}{digest}" == reference


def test_a_short_image_reference_is_docker_hubs() -> None:
    assert image("redis:7.4.5") == {"registry": "docker.io", "repository": "library/redis", "tag": "7.4.5"}
    assert image("own/redis:1") == {"registry": "docker.io", "repository": "own/redis", "tag": "1"}


def test_what_a_certificate_must_hold_for() -> None:
    names = target(load_settings(ROOT, "staging")).hosts("qdrant")
    assert {"127.0.0.1", "localhost", "qdrant", "qdrant.plinth-staging.svc.cluster.local"} <= set(names)
    assert {f"qdrant-{n}.qdrant-headless" for n in range(3)} <= set(names)
