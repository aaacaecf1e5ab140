"""Settings: every environment loads, and a wrong key is one sentence that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.deployment.preflight import preflight
from plinth.errors import UserError
from plinth.settings import Settings, TargetName
from plinth.settings.loader import ENCRYPTED, load_settings, parse, settings_of_program
from plinth.settings.tiers import SIZES, Tier
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("env", "target", "nodes"),
    [
        ("local", "local", 1),
        ("dev", "docker", 1),
        ("cluster", "docker", 3),
        ("staging", "kubernetes", 3),
        ("prod", "kubernetes", 3),
    ],
)
@pytest.mark.requirement("S1-01")
def test_every_environment_loads_and_passes_preflight(env: str, target: str, nodes: int) -> None:
    settings = load_settings(ROOT, env)
    preflight(settings)
    assert settings.target is TargetName(target)
    assert settings.qdrant.nodes == nodes
    assert [database.name for database in settings.postgres.databases] == ["digi_core", "lernmi", "beep_boop"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"target": "local", "qdrant": {"nods": 1}}, "unknown key plinth:qdrant.nods; did you mean 'nodes'?"),
        ({"target": "local", "tier": "huge"}, "plinth:tier: input should be 'small', 'medium' or 'large', got 'huge'"),
        ({}, "plinth:target is missing"),
        ({"target": "local", "redis": {"maxmemory_policy": "all"}}, "plinth:redis.maxmemory_policy"),
        ({"target": "local", "postgres": {"databases": [{"name": "A b"}]}}, "plinth:postgres.databases.0.name"),
    ],
)
def test_a_wrong_key_is_named_with_what_is_allowed(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(values, source="stacks/Pulumi.x.yaml")
    assert str(refused.value).startswith("stacks/Pulumi.x.yaml: ")
    assert words in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "values",
    [
        {"qdrant": {"api_key": 73313}},
        {"monitoring": {"alertmanager": {"heartbeat_url": 73313}}},
        {"monitoring": {"alertmanager": {"ticket_webhook_url": 73313}}},
    ],
)
def test_a_secret_of_the_wrong_type_is_not_repeated(values: dict[str, object]) -> None:
    with pytest.raises(UserError) as refused:
        parse({"target": "local", **values}, source="x")
    assert "73313" not in str(refused.value)


def test_an_unknown_environment_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no environment 'lcoal'.*cluster, dev, local, prod, staging"):
        load_settings(ROOT, "lcoal")


def test_encrypted_values_are_left_alone_until_pulumi_opens_them(tmp_path: Path) -> None:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.x.yaml").write_text(
        "config:\n  plinth:target: local\n  plinth:qdrant:\n    api_key: {secure: v1:abc}\n"
    )
    key = load_settings(tmp_path, "x").qdrant.api_key
    assert key is not None
    assert key.get_secret_value() == ENCRYPTED


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("config: [1]\n", "no `config:` mapping"),
        ("a: [\n", "is not YAML"),
        ("config:\n  plnth:target: local\n", "unknown key 'plnth:target'"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.x.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        load_settings(tmp_path, "x")


def test_pulumi_hands_structured_values_over_as_json() -> None:
    settings = settings_of_program(
        {"plinth:target": "local", "plinth:qdrant": '{"http_port": 7333}', "aws:region": "x"}
    )
    assert settings.qdrant.http_port == 7333


@pytest.mark.requirement("S1-11")
@given(
    tier=st.sampled_from(list(Tier)),
    memory=st.none() | st.integers(512, 10**6),
    cpus=st.none() | st.floats(0.1, 128),
    disk=st.none() | st.integers(1, 10**5),
)
def test_a_tier_sets_all_sizes_and_each_can_be_set_alone(
    tier: Tier, memory: int | None, cpus: float | None, disk: int | None
) -> None:
    given_values = {"memory_mib": memory, "cpus": cpus, "disk_gib": disk}
    size = parse(
        {"target": "local", "tier": tier, "qdrant": {k: v for k, v in given_values.items() if v is not None}},
        source="x",
    ).size
    base = SIZES[tier]
    assert size.memory_mib == (memory or base.memory_mib)
    assert size.cpus == (cpus or base.cpus)
    assert size.disk_gib == (disk or base.disk_gib)
    assert size.redis_memory_mib == base.redis_memory_mib


def test_the_published_schema_is_that_of_the_settings() -> None:

    published = json.loads((ROOT / "stacks" / "settings.schema.json").read_text())
    known = {f"plinth:{name}" for name in Settings.model_fields}
    assert set(published["properties"]["config"]["properties"]) == known
