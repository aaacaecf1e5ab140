"""A secret that is generated once and kept with the data that it opens."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from plinth.resources.base import Provider
from plinth.system.atomic_files import locked, write_whole
from plinth.system.private_directories import make_passage

ENTROPY_BYTES = 24


def kept_secret(path: Path, name: str, known_value: str | None = None) -> str:
    """Return the secret of that name in the file; if absent, store the known value, or else a generated one.

    The file outlives Pulumi's state on purpose: a Postgres volume kept over `down` opens with its old password only.
    """
    make_passage(path.parent)
    with locked(path.with_suffix(".lock")):
        known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        if name not in known:
            known[name] = known_value or secrets.token_urlsafe(ENTROPY_BYTES)
            write_whole(path, json.dumps(known, indent=2) + "\n")
        return known[name]


class GeneratedSecretProvider(Provider):
    """Reads or generates the secret on create; delete leaves it with the data."""

    compared = ("kept_in", "secret")

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Generate the secret, or load the existing one."""
        value = kept_secret(Path(props["kept_in"]), props["secret"])
        return CreateResult(props["secret"], {**props, "value": value})

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Follow a moved file, as on another machine that shares the state: the secret stays unchanged."""
        value = kept_secret(Path(_news["kept_in"]), _news["secret"], _olds.get("value"))
        return UpdateResult({**_news, "value": value})


class GeneratedSecret(Resource, module="plinth", name="GeneratedSecret"):
    """A generated secret; ``value`` is encrypted in the state."""

    value: pulumi.Output[str]

    def __init__(self, name: str, kept_in: Path, opts: pulumi.ResourceOptions | None = None) -> None:
        """Declare the secret ``name``; ``kept_in`` is the 0600 file that holds it next to the data."""
        super().__init__(
            GeneratedSecretProvider(),
            name,
            {"secret": name, "kept_in": str(kept_in), "value": None},
            pulumi.ResourceOptions.merge(pulumi.ResourceOptions(additional_secret_outputs=["value"]), opts),
        )
