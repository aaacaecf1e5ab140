"""Pulumi's values on the wire: secrets, unknowns, and plain data."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format, struct_pb2

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def to_plain(value: Any) -> Any:
    """The value with the marks of secrets taken off."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return to_plain(value["value"])
        return {key: to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [to_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def in_the_clear(value: Any) -> Any:
    """The value with everything that is marked as a secret left out."""
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return None
        return {key: in_the_clear(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [in_the_clear(inner) for inner in value]
    return value


def from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """What a struct holds, its keys sorted: the engine sends them in any order, and Helm goes through them by name."""
    found: dict[str, Any] = json.loads(json_format.MessageToJson(struct, sort_keys=True, indent=None))
    return found


def to_struct(value: dict[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(value, struct_pb2.Struct())
