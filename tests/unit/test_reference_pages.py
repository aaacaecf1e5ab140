"""docs/settings.md and docs/cli.md are what `make docs` writes, and say of a change what the services make of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from typer.main import get_command

from plinth.cli import COMMANDS, app
from plinth.services.spec import Service
from plinth.settings import Settings
from plinth.settings.loader import parse
from tests.conftest import ROOT
from tests.services import services_of
from tools.documents import generated
from tools.documents.changes import EFFECTS, Effect, effect_of
from tools.documents.settings_reference import settings_keys

PAGES = generated()
KEYS = settings_keys()
# An environment with every service that one target can have.
EVERYTHING: Mapping[str, Any] = {
    "target": "docker",
    "neo4j": {"enabled": True},
    "monitoring": {"loki": {"enabled": True}},
    "gateway": {"enabled": True, "tracing": {"endpoint": "http://collector:4318"}},
}
# The target or the next command reads these keys, and no service.
OUTSIDE_OF_SERVICES = ("docker.", "kubernetes.")
SETTINGS = parse(EVERYTHING, source="before")


def _services(settings: Settings) -> dict[str, Service]:
    return {service.name: service for service in services_of(settings)}


def _other_value(settings: Settings, key: str) -> Any:
    """A value of the same type as the present one, other than it; None where none follows from the type."""
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part, None)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int) and key != "gateway.provider.dimension":
        return value + 1
    return value / 2 if isinstance(value, float) else None


def _with(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    changed: dict[str, Any] = copy.deepcopy(dict(values))
    *sections, name = key.split(".")
    section = changed
    for part in sections:
        section = section.setdefault(part, {})
    section[name] = value
    return changed


# Of a text, a secret or a section no other value follows from its type.
OTHER_VALUES = {
    key: value
    for key in KEYS
    if not key.startswith(OUTSIDE_OF_SERVICES) and (value := _other_value(SETTINGS, key)) is not None
}
BEFORE = _services(SETTINGS)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_what_make_docs_writes(name: str) -> None:
    assert (ROOT / name).read_text() == PAGES[name], f"{name} is stale; run `make docs`."


def test_settings_page_has_a_row_for_each_key_of_the_models() -> None:
    assert {f"{section}.{key}" for section, key in _leaves(Settings.model_json_schema())} <= set(KEYS)
    assert {"target", "qdrant.tls.cert", "postgres.databases.password", "kubernetes.managed.redis_url"} <= set(KEYS)


def test_settings_page_explains_each_key() -> None:
    for line in PAGES["docs/settings.md"].splitlines():
        if line.startswith("| `"):
            key, kind, default, _, _, purpose, change = line.replace("\\|", "/").strip("| ").split(" | ")
            assert all((kind.strip(), default.strip(), purpose.strip(), change.strip())), key


def test_every_effect_is_of_a_key_that_is_there() -> None:
    sections = {key.rpartition(".")[0] for key in KEYS} | {key.partition(".")[0] for key in KEYS}
    assert set(EFFECTS) <= set(KEYS) | sections


def test_cli_page_describes_every_command() -> None:
    for name in COMMANDS:
        command: Any = get_command(app).load(name)  # type: ignore[attr-defined]
        for path in [f"plinth {name} {inner}" for inner in getattr(command, "commands", {})] or [f"plinth {name}"]:
            assert f"# {path}\n" in PAGES["docs/cli.md"]


@pytest.mark.parametrize(("key", "value"), OTHER_VALUES.items(), ids=OTHER_VALUES)
def test_effect_of_a_change_is_what_the_services_make_of_it(key: str, value: Any) -> None:
    new = _services(parse(_with(EVERYTHING, key, value), source="after"))
    added_or_removed = set(BEFORE) != set(new) or any(BEFORE[name].peers != new[name].peers for name in BEFORE)
    changed = {name for name in set(BEFORE) & set(new) if BEFORE[name] != new[name]}
    resized = {name for name in changed if BEFORE[name].volumes != new[name].volumes}
    effect, _ = effect_of(key)
    assert added_or_removed == (effect is Effect.starts_or_stops)
    if effect is Effect.restarts:
        assert changed
    if effect is Effect.grows:
        assert resized == changed
    if effect is Effect.in_place:
        assert not resized


def _leaves(schema: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The keys of each section at the top, without those of the models within it."""
    return {
        (section, key)
        for section, node in schema["properties"].items()
        if "$ref" in node
        for key, inner in schema["$defs"][node["$ref"].rpartition("/")[2]].get("properties", {}).items()
        if "$ref" not in inner
    }
