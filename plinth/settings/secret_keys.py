"""The keys of the settings that are secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from plinth.settings import Settings


@cache
def secret_keys() -> frozenset[str]:
    """Return every setting that is a secret, an entry of a list as `[]`: `postgres.databases[].password`."""
    schema = Settings.model_json_schema()
    return frozenset(_secret(schema, schema["$defs"], ""))


def is_secret(key: str) -> bool:
    """Return whether a setting such as `postgres.databases[0].password` is a secret."""
    return re.sub(r"\[\d+\]", "[]", key) in secret_keys()


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
