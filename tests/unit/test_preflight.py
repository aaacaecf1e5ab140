"""Preflight refuses what would lose data or open it, in one sentence with the next step."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.deployment.deployed_versions import Deployed
from plinth.deployment.preflight import ports, preflight, refusals
from plinth.errors import UserError
from plinth.settings import Settings
from plinth.settings.loader import parse


def settings(**values: Any) -> Settings:
    return parse({"target": "docker", **values}, source="x")


@pytest.mark.requirement("S1-03")
@pytest.mark.requirement("S1-14")
@pytest.mark.parametrize(
    ("values", "deployed", "words"),
    [
        ({"qdrant": {"nodes": 2, "replication_factor": 2}}, {}, "two peers have no majority"),
        ({"qdrant": {"nodes": 3}}, {}, "replication_factor is 1 on 3 nodes"),
        ({"qdrant": {"replication_factor": 2}}, {}, "at most one replica a node"),
        ({"target": "local", "qdrant": {"nodes": 3, "replication_factor": 2}}, {}, "the local target runs one node"),
        ({"target": "local", "bind_address": "0.0.0.0"}, {}, "loopback only"),
        (
            {"qdrant": {"auth": False}, "bind_address": "0.0.0.0", "docker": {"publish": ["qdrant"]}},
            {},
            "anyone who reaches the port",
        ),
        ({"bind_address": "0.0.0.0"}, {}, "names nothing that would listen there"),
        ({"docker": {"publish": ["qdrant"]}}, {}, "which other machines do not reach"),
        (
            {"bind_address": "0.0.0.0", "docker": {"publish": ["neo4j"]}},
            {},
            "names neo4j, which is off",
        ),
        ({"docker": {"images": {"qdrant": "qdrant/qdrant:latest"}}}, {}, "a tag that moves"),
        ({"docker": {"images": {"qdrant": "localhost:5000/qdrant"}}}, {}, "a tag that moves"),
        ({"redis": {"port": 5432}}, {}, "are both 5432"),
        (
            {"qdrant": {"version": "1.20.0"}},
            {"qdrant_version": "1.18.3"},
            "one minor at a time; set the last patch of 1.19",
        ),
        ({"qdrant": {"version": "1.17.0"}}, {"qdrant_version": "1.18.3"}, "cannot go back"),
        ({"postgres": {"databases": [{"name": "a"}, {"name": "a"}]}}, {}, "the database 'a' twice"),
        ({"postgres": {"databases": [{"name": "postgres"}]}}, {}, "Postgres' own name"),
        ({"backup": {"s3": {"access_key_id": "a", "secret_access_key": "b"}}}, {}, "is none in S3"),
        ({"backup": {"ca_cert": "ca.pem", "repository": "s3:http://h/b"}}, {}, "names none with TLS"),
        ({"backup": {"ca_cert": "ca.pem"}}, {}, "names none with TLS"),
        ({"backup": {"repository": "rest:https://me:pass@host/plinth"}}, {}, "has a secret in its address"),
        ({"qdrant": {"jwt_rbac": True, "auth": False}}, {}, "no key signs tokens"),
        ({"qdrant": {"jwt_rbac": True, "api_key": "short"}}, {}, "qdrant.api_key has 5 characters"),
        ({"qdrant": {"jwt_rbac": True, "alt_api_key": "k" * 31}}, {}, "qdrant.alt_api_key has 31 characters"),
        ({"gateway": {"enabled": True}, "redis": {"enabled": False}}, {}, "the gateway needs Redis"),
        ({"gateway": {"enabled": True}, "postgres": {"enabled": False}}, {}, "the gateway needs Postgres"),
        ({"gateway": {"enabled": True, "replicas": 2}}, {}, "the docker target runs one of each"),
        ({"gateway": {"enabled": True, "worker_replicas": 2}, "target": "local"}, {}, "local target runs one of each"),
        (
            {"gateway": {"enabled": True, "replicas": 3, "replicas_max": 2}, "target": "kubernetes"},
            {},
            "replicas_max is 2, less than",
        ),
        ({"bind_address": "0.0.0.0", "docker": {"publish": ["gateway"]}}, {}, "names gateway, which is off"),
    ],
)
def test_refused(values: dict[str, Any], deployed: Deployed, words: str) -> None:
    with pytest.raises(UserError) as refused:
        preflight(settings(**values), deployed)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("values", "deployed"),
    [
        ({"qdrant": {"nodes": 3, "allow_single_replica": True}}, {}),
        ({"qdrant": {"version": "1.19.1"}}, {"qdrant_version": "1.18.3"}),
        ({"gateway": {"enabled": True}}, {}),
        ({"gateway": {"enabled": True}, "qdrant": {"jwt_rbac": True, "api_key": "k" * 32}}, {}),
        ({"gateway": {"enabled": True, "replicas": 2, "replicas_max": 4}, "target": "kubernetes"}, {}),
        ({"gateway": {"enabled": True}, "bind_address": "0.0.0.0", "docker": {"publish": ["gateway"]}}, {}),
        # Volumes have a size on kubernetes alone, where the claims are asked. A run that failed wrote this once.
        ({"tier": "small"}, {"disk_gib": {"prometheus": 20, "qdrant": 100}}),
        ({"target": "local", "qdrant": {"disk_gib": 5}}, {"disk_gib": {"qdrant": 10}}),
        ({"docker": {"images": {"qdrant": "mirror:5000/qdrant@sha256:" + "0" * 64}}}, {}),
        ({"qdrant": {"auth": False}}, {}),
        ({"backup": {"repository": "s3:http://h:9000/b", "s3": {"access_key_id": "a", "secret_access_key": "b"}}}, {}),
        ({"backup": {"repository": "sftp:me@host:/plinth"}}, {}),
        ({"backup": {"ca_cert": "ca.pem", "repository": "s3:https://h/b"}}, {}),
        ({"backup": {"ca_cert": "ca.pem", "repository": "s3:h/b"}}, {}),
        ({"backup": {"ca_cert": "ca.pem", "repository": "rest:https://h/b"}}, {}),
    ],
)
def test_allowed(values: dict[str, Any], deployed: dict[str, Any]) -> None:
    preflight(settings(**values), cast("Deployed", deployed))


@given(nodes=st.integers(1, 9), factor=st.integers(1, 9), single=st.booleans())
def test_no_cluster_that_loses_data_with_one_node_passes_unsaid(nodes: int, factor: int, single: bool) -> None:
    wanted = settings(qdrant={"nodes": nodes, "replication_factor": factor, "allow_single_replica": single})
    passes = not list(refusals(wanted, {}))
    assert passes == (nodes != 2 and factor <= nodes and (nodes == 1 or factor > 1 or single))


def test_disabled_services_claim_no_port() -> None:
    wanted = settings(redis={"enabled": False}, neo4j={"enabled": False})
    assert not [key for key in ports(wanted) if key.startswith(("redis", "neo4j")) or key.endswith("redis_port")]


@pytest.mark.parametrize(("repository", "said"), [("/mnt/backups", True), ("backups", True), ("s3:https://h/b", False)])
@pytest.mark.parametrize(("target", "place"), [("kubernetes", "pod"), ("docker", "container")])
def test_a_repository_that_would_go_with_its_container_is_refused(
    target: str, place: str, repository: str, said: bool
) -> None:
    wanted = settings(target=target, backup={"repository": repository})
    assert any(f"a directory, and no {place} has it" in sentence for sentence in refusals(wanted, {})) == said
    assert not list(refusals(settings(target="local", backup={"repository": repository}), {}))


def test_a_service_that_would_be_left_out_in_silence_is_refused() -> None:
    assert any(
        "deploys no Neo4j" in sentence
        for sentence in refusals(settings(target="kubernetes", neo4j={"enabled": True}), {})
    )


LOGIN = {"user": "u", "password": "p"}


@pytest.mark.parametrize(
    ("backup", "message"),
    [
        ({"rest": LOGIN}, "names none"),
        ({"rest": LOGIN, "repository": "s3:https://h/b"}, "names none"),
        ({"rest": LOGIN, "repository": "rest:http://h.test:8000/x"}, "in the clear"),
        ({"append_only": True}, "its owner can always delete"),
        ({"append_only": True, "repository": "/srv/backups"}, "its owner can always delete"),
        ({"rest": LOGIN, "repository": "rest:https://h.test:8000/x", "append_only": True}, None),
        ({"rest": LOGIN, "repository": "rest:http://127.0.0.1:8000/x"}, None),
        ({"rest": LOGIN, "repository": "rest:http://[::1]:8000/x"}, None),
    ],
)
def test_a_repository_s_login_and_append_only_fit_its_address(backup: dict[str, Any], message: str | None) -> None:
    sentences = [s for s in refusals(parse({"target": "local", "backup": backup}, source="x"), {}) if "backup" in s]
    assert (message is None and not sentences) or any(message and message in sentence for sentence in sentences)
