"""The base of Plinth's dynamic providers.

Inputs are strings: structured ones travel as JSON text, since Pulumi hands a dynamic provider every number as a float.
A provider lives in this installed package and is never renamed: Pulumi stores its import path and runs today's code to
delete yesterday's resource.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pulumi
from pulumi.dynamic import DiffResult, ReadResult, ResourceProvider

GONE = ReadResult("", {})


class Provider(ResourceProvider):
    """A provider that compares its declared inputs and keeps its outputs on update."""

    # Nothing is captured at serialisation, so the serialised provider (its import path) is no secret.
    serialize_as_secret_always = False
    compared: ClassVar[tuple[str, ...]] = ()

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Report a change when a declared input differs from the one last applied."""
        return DiffResult(changes=any(_olds.get(key) != _news.get(key) for key in self.compared))


def optional_secret(value: pulumi.Input[str] | None) -> pulumi.Output[str] | None:
    """Return the value as a secret, which the state encrypts, or None."""
    return None if value is None else pulumi.Output.secret(value)


def to_json(value: Any) -> str:
    """Return JSON text that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
