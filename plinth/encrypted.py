"""Settings that are secret: which they are, and refusing one that its file holds in the clear."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from plinth.environment import NAMESPACE, read_config, settings_file
from plinth.errors import UserError
from plinth.settings import Settings


@cache
def secret_keys() -> frozenset[str]:
    """Every setting that is a secret, an entry of a list as `[]`: `postgres.databases[].password`."""
    schema = Settings.model_json_schema()
    return frozenset(_secret(schema, schema["$defs"], ""))


def is_secret(key: str) -> bool:
    """Whether a setting such as `postgres.databases[0].password` is one."""
    return re.sub(r"\[\d+\]", "[]", key) in secret_keys()


def in_the_clear(config: Mapping[str, Any]) -> Iterator[str]:
    """The secrets that a stack file's `config:` spells out, by their keys."""
    for name, value in config.items():
        yield from (key for key in _spelled(value, name.removeprefix(f"{NAMESPACE}:")) if is_secret(key))


def refuse_plain(root: Path, env: str) -> None:
    """Raise :class:`UserError` where an environment's file holds a secret in the clear.

    Whoever reads the repository would read it, and Pulumi would keep it so in its history.
    """
    path = settings_file(root, env)
    found = list(in_the_clear(read_config(path)))
    if found:
        raise UserError(
            f"{path.relative_to(root)} holds {', '.join(f'{NAMESPACE}:{key}' for key in found)} in the clear; encrypt "
            f"it: `plinth secret {env} {found[0]}`."
        )


def _secret(node: Mapping[str, Any], known: Mapping[str, Any], key: str) -> Iterator[str]:
    if node.get("writeOnly"):
        yield key
    inner = [known[node["$ref"].rpartition("/")[2]]] if "$ref" in node else node.get("anyOf", [])
    for option in inner:
        yield from _secret(option, known, key)
    if "items" in node:
        yield from _secret(node["items"], known, f"{key}[]")
    for name, value in node.get("properties", {}).items():
        yield from _secret(value, known, f"{key}.{name}".removeprefix("."))


def _spelled(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, dict):
        if set(value) != {"secure"}:
            for name, inner in value.items():
                yield from _spelled(inner, f"{key}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _spelled(inner, f"{key}[{number}]")
    elif value is not None:
        yield key
