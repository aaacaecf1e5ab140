"""Which settings are secret, and which of a file are in the clear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from plinth.errors import UserError
from plinth.services.webhooks import TOKENS
from plinth.settings import Settings
from plinth.settings.loader import load_settings, stack_schema
from plinth.settings.plaintext_secrets import in_the_clear, refuse_plain
from plinth.settings.secret_keys import is_secret, secret_keys

SECURE = {"secure": "v1:abc:def"}
# Every secret that can be set, with what it needs beside it.
FILLED: dict[str, Any] = {
    "target": "local",
    "qdrant": dict.fromkeys(("api_key", "alt_api_key", "read_only_api_key"), "s" * 8),
    "postgres": {"superuser_password": "s", "databases": [{"name": "a", "password": "s"}]},
    "redis": {"password": "s"},
    "neo4j": {"password": "s" * 8},
    "monitoring": {
        "grafana": dict.fromkeys(("admin_password", "secret_key"), "s"),
        "prometheus": {"password": "s" * 8},
        "alertmanager": {"password": "s" * 8} | dict.fromkeys([*TOKENS, *TOKENS.values()], "s"),
    },
    "backup": {
        "password": "s",
        "repository": "s3:https://store.example/b",
        "s3": {"access_key_id": "s", "secret_access_key": "s"},
        "rest": {"user": "u", "password": "s"},
    },
    "gateway": {
        "tokens": {"signing_key": "s" * 32},
        "provider": {"name": "http", "url": "https://models.example/v1", "model": "m", "api_key": "s" * 8},
        "tracing": {"endpoint": "https://traces.example", "headers": "x-key=s"},
    },
}


def test_every_secret_that_the_settings_have_is_known_by_its_key() -> None:
    filled = Settings.model_validate(FILLED)
    held = set(_secrets(filled, ""))
    assert held == secret_keys()


def _secrets(value: object, key: str) -> list[str]:
    if isinstance(value, SecretStr):
        return [key]
    if isinstance(value, list | tuple):
        return [found for inner in value for found in _secrets(inner, f"{key}[]")]
    fields = getattr(type(value), "model_fields", {})
    return [found for name in fields for found in _secrets(getattr(value, name), f"{key}.{name}".removeprefix("."))]


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"plinth:redis": {"password": SECURE, "port": 6379}}, []),
        ({"plinth:redis": {"password": None}}, []),
        ({"plinth:redis": {"password": ""}}, ["redis.password"]),
        ({"plinth:redis": SECURE}, []),
        (
            {"plinth:postgres": {"databases": [{"name": "a", "password": SECURE}, {"name": "b", "password": "x"}]}},
            ["postgres.databases[1].password"],
        ),
        ({"plinth:backup": {"s3": {"access_key_id": "id", "region": "eu"}}}, ["backup.s3.access_key_id"]),
        ({"plinth:target": "local", "pulumi:tags": {"password": "no setting of Plinth's"}}, []),
    ],
)
def test_what_is_in_the_clear_is_named_by_its_key(config: dict[str, object], found: list[str]) -> None:
    assert list(in_the_clear(config)) == found


def test_a_key_of_a_list_is_a_secret_whichever_its_entry() -> None:
    assert is_secret("postgres.databases[12].password")
    assert not is_secret("postgres.databases[12].name")
    assert not is_secret("postgres.databases.password")


def test_the_refusal_says_where_and_what_to_type_and_not_the_secret(tmp_path: Path) -> None:
    (tmp_path / "stacks").mkdir()
    config = {"plinth:target": "local", "plinth:redis": {"password": "open-sesame"}}
    (tmp_path / "stacks" / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": config}))
    with pytest.raises(
        UserError, match=r"plinth:redis\.password in the clear.*`plinth secret dev redis\.password`"
    ) as no:
        refuse_plain(tmp_path, "dev")
    assert "open-sesame" not in str(no.value)


def _encrypted(value: Any, key: str = "") -> Any:
    if is_secret(key):
        return SECURE
    if isinstance(value, dict):
        return {name: _encrypted(inner, f"{key}.{name}".removeprefix(".")) for name, inner in value.items()}
    return [_encrypted(inner, f"{key}[]") for inner in value] if isinstance(value, list) else value


def test_every_secret_may_be_encrypted_in_the_file_whatever_is_asked_of_it_in_the_clear(tmp_path: Path) -> None:
    (tmp_path / "stacks").mkdir()
    config = {f"plinth:{name}": value for name, value in _encrypted(FILLED).items()}
    (tmp_path / "stacks" / "Pulumi.dev.yaml").write_text(yaml.safe_dump({"config": config}))
    settings = load_settings(tmp_path, "dev")
    assert set(_secrets(settings, "")) == secret_keys()


def test_an_editor_takes_a_secret_as_the_file_holds_it_and_not_in_the_clear() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(stack_schema())
    file = {"config": {"plinth:target": "local", "plinth:redis": {"password": SECURE}}}
    assert list(check.iter_errors(file)) == []
    file["config"]["plinth:redis"] = {"password": "open-sesame"}
    assert list(check.iter_errors(file))
