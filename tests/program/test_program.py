"""The program under Pulumi's mocks, as a preview and as an update: what is declared, and what is secret."""

from __future__ import annotations

import json
from collections.abc import Callable

import pulumi
import pytest

from plinth.errors import UserError
from plinth.settings.loader import parse
from tests.program.recorder import SECRET, Recorder

LOCAL = {
    "target": "local",
    "postgres": {"databases": [{"name": "digi_core"}, {"name": "lernmi", "owner": "teacher"}]},
}


@pytest.mark.parametrize("preview", [False, True])
def test_local_declares_every_service_database_and_collection(run: Callable[..., Recorder], preview: bool) -> None:
    declared = run(parse(LOCAL, source="x"), preview=preview).resources
    kinds: dict[str, set[str]] = {}
    for name, (kind, _) in declared.items():
        kinds.setdefault(kind, set()).add(name)
    services = kinds["Process"]
    assert {"qdrant", "postgres", "redis", "prometheus", "alertmanager", "node-exporter"} <= services
    assert kinds["Ready"] == {f"{service}-ready" for service in services}
    assert kinds["Database"] == {"database-digi_core", "database-lernmi"}
    assert len(kinds["Collection"]) == 9
    assert kinds["Aliases"] == {"aliases"}


@pytest.mark.requirement("S1-01")
def test_each_database_has_an_owner_and_a_password_of_its_own(run: Callable[..., Recorder]) -> None:
    declared = run(parse(LOCAL, source="x")).resources
    assert {declared[f"database-{name}"][1]["owner"] for name in ("digi_core", "lernmi")} == {"digi_core", "teacher"}
    secrets = {name for name, (kind, _) in declared.items() if kind == "GeneratedSecret"}
    assert {"postgres_digi_core_password", "postgres_teacher_password", "postgres_password"} <= secrets


@pytest.mark.requirement("S1-14")
def test_no_secret_is_in_a_process_definition_or_a_plain_input(run: Callable[..., Recorder]) -> None:
    declared = run(parse(LOCAL, source="x")).resources
    for name, (kind, inputs) in declared.items():
        for key, value in inputs.items():
            plain = not (isinstance(value, dict) and pulumi.runtime.rpc._special_sig_key in value)
            if kind != "GeneratedSecret" and plain and key != "__provider":
                assert SECRET not in json.dumps(value, default=str), f"{name}.{key} holds a secret in the clear"


def test_every_process_listens_on_loopback_alone(run: Callable[..., Recorder]) -> None:
    declared = run(parse(LOCAL, source="x")).resources
    for name, (kind, inputs) in declared.items():
        if kind == "Process":
            assert "0.0.0.0" not in inputs["spec"], name
            assert "--web.listen-address=:" not in inputs["spec"], name


def test_what_is_disabled_is_not_declared(run: Callable[..., Recorder]) -> None:
    settings = parse(
        {
            "target": "local",
            "postgres": {"enabled": False},
            "redis": {"enabled": False},
            "backup": {"enabled": False},
            "monitoring": {"prometheus": {"enabled": False}, "exporters": {"enabled": False}},
            "collections": {"only": ["trades"]},
        },
        source="x",
    )
    declared = run(settings).resources
    assert {name for name, (kind, _) in declared.items() if kind == "Process"} <= {"qdrant", "alertmanager", "grafana"}
    assert [name for name, (kind, _) in declared.items() if kind == "Collection"] == ["collection-trades_v1"]


def test_a_contradiction_is_refused_before_anything_is_declared(run: Callable[..., Recorder]) -> None:
    with pytest.raises(UserError, match="loopback only"):
        run(parse({**LOCAL, "bind_address": "0.0.0.0"}, source="x"))
