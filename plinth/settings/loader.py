"""Loading one environment's settings: from its file for the command line, from Pulumi's config inside a program."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from plinth.errors import UserError
from plinth.paths import refuse_name
from plinth.settings import Settings
from plinth.settings.base import ENCRYPTED, ROOT
from plinth.settings.secret_keys import is_secret
from plinth.system.yaml_files import read_yaml

NAMESPACE = "plinth"


def project_root() -> Path:
    """Return the directory of Pulumi.yaml: the working directory or the nearest one above it."""
    here = Path.cwd()
    for directory in (here, *here.parents):
        if (directory / "Pulumi.yaml").is_file() and (directory / "stacks").is_dir():
            return directory
    raise UserError(
        f"{here} is not inside a Plinth project (no Pulumi.yaml with a stacks/ beside it); cd into your clone."
    )


def settings_file(root: Path, env: str) -> Path:
    """Return the path of an environment's settings; refuses one that does not exist, and lists the existing ones."""
    refuse_name(root, env)
    path = root / "stacks" / f"Pulumi.{env}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.name.split(".")[1] for p in (root / "stacks").glob("Pulumi.*.yaml"))) or "none"
        raise UserError(f"There is no environment '{env}' ({path} does not exist); known are: {known}.")
    return path


def read_config(path: Path) -> dict[str, Any]:
    """Return the `config:` mapping of a Pulumi stack file, keys as written."""
    document = read_yaml(path) or {}
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise UserError(f"{path} has no `config:` mapping; it must hold keys such as `{NAMESPACE}:target: local`.")
    return config


def load_settings(root: Path, env: str) -> Settings:
    """Load one environment's settings, with encrypted values left as :data:`ENCRYPTED`."""
    path = settings_file(root, env)
    config = read_config(path)
    stray = [key for key in config if not key.startswith((f"{NAMESPACE}:", "pulumi:", "docker:", "kubernetes:"))]
    if stray:
        raise UserError(f"{path}: unknown key '{stray[0]}'; Plinth's keys start with `{NAMESPACE}:`.")
    return parse(_without_ciphertext(_own_keys(config)), source=str(path.relative_to(root)), root=root)


def settings_of_program(config: Mapping[str, str], root: Path | None = None) -> Settings:
    """Return the settings in Pulumi's runtime config (full keys, values as text or JSON), with secrets decrypted."""
    values = {key: _decode(value) for key, value in _own_keys(config).items()}
    return parse(values, source="Pulumi's config", root=root)


def parse(values: Mapping[str, Any], *, source: str, root: Path | None = None) -> Settings:
    """Validate settings; an error names the source, the key and the allowed values.

    With ``root``, the project's directory, their paths are absolute.
    """
    try:
        return Settings.model_validate(values, context={ROOT: root})
    except ValidationError as error:
        raise UserError(f"{source}: " + "; ".join(_sentence(e) for e in error.errors(include_url=False))) from None


def refuse_value(key: str, value: Any) -> None:
    """Raise :class:`UserError` for the invalid value of one setting, such as `postgres.databases[0].password`."""
    parts = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", key)]
    values: Any = value
    for part in reversed(parts):
        values = [values] if isinstance(part, int) else {part: values}
    location = tuple(0 if isinstance(part, int) else part for part in parts)
    try:
        Settings.model_validate({"target": "local"} | values, context={ROOT: None})
    except ValidationError as error:
        problems = [problem for problem in error.errors(include_url=False) if problem["loc"] == location]
        if problems:
            raise UserError(f"{_sentence(problems[0])}.") from None


def stack_schema() -> dict[str, Any]:
    """Return the JSON schema of a stack file, for completion and checks in an editor."""
    settings = _encrypted(Settings.model_json_schema())
    keys = {f"{NAMESPACE}:{name}": schema for name, schema in settings["properties"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Plinth environment: stacks/Pulumi.<env>.yaml",
        "type": "object",
        "required": ["config"],
        "properties": {"config": {"type": "object", "required": [f"{NAMESPACE}:target"], "properties": keys}},
        "$defs": settings["$defs"],
    }


def _encrypted(node: Any) -> Any:
    """Return a schema in which each secret has the form that Pulumi gives it in a file."""
    if isinstance(node, list):
        return [_encrypted(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    if node.get("writeOnly") is not True:
        return {key: _encrypted(inner) for key, inner in node.items()}
    about = {key: node[key] for key in ("title", "description") if key in node}
    secure = {"secure": {"type": "string"}}
    return about | {"type": "object", "required": ["secure"], "properties": secure, "additionalProperties": False}


def _own_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"{NAMESPACE}:"
    return {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}


def _decode(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _without_ciphertext(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"secure"}:
            return ENCRYPTED
        return {key: _without_ciphertext(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_ciphertext(inner) for inner in value]
    return value


def _sentence(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    key = f"{NAMESPACE}:{'.'.join(location)}"
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).removeprefix(".")
    if error["type"] == "extra_forbidden":
        allowed = _allowed_keys(error["loc"][:-1])
        near = difflib.get_close_matches(location[-1], allowed, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        return f"unknown key {key}; {hint}allowed here: {', '.join(allowed)}"
    if error["type"] == "missing":
        return f"{key} is missing; set it"
    # A URL has no place for a login here, and the login may hold a password.
    shown = "a value that is not shown" if is_secret(path) else re.sub(r"://.*@", "://***@", repr(error["input"]))
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}, got {shown}"


def _allowed_keys(location: tuple[int | str, ...]) -> list[str]:
    schema = Settings.model_json_schema()
    node: dict[str, Any] = schema
    for part in location:
        node = node["items"] if isinstance(part, int) else node["properties"][part]
        node = next((o for o in node.get("anyOf", ()) if "$ref" in o or "items" in o), node)
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return sorted(node.get("properties", {}))
