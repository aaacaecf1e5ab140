"""Secrets that a stack file holds in plain text: detected and refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plinth.errors import UserError
from plinth.settings.loader import NAMESPACE, read_config, settings_file
from plinth.settings.secret_keys import is_secret


def in_the_clear(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of the secrets that a stack file's `config:` holds in plain text."""
    for name, value in config.items():
        yield from (key for key in _spelled(value, name.removeprefix(f"{NAMESPACE}:")) if is_secret(key))


def refuse_plain(root: Path, env: str) -> None:
    """Raise :class:`UserError` where an environment's file holds a secret in plain text.

    Every reader of the repository would see it, and Pulumi would keep it in plain text in its history.
    """
    path = settings_file(root, env)
    found = list(in_the_clear(read_config(path)))
    if found:
        raise UserError(
            f"{path.relative_to(root)} holds {', '.join(f'{NAMESPACE}:{key}' for key in found)} in the clear; encrypt "
            f"it: `plinth secret {env} {found[0]}`."
        )


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
