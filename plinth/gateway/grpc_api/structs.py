"""Payloads as google.protobuf.Struct, whose numbers are doubles.

A number without a fraction, below 2^53 either way, becomes an integer, as JSON would write it. From there on two
integers may be one double: it stays a double on its way in, and on its way out an integer becomes the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

from plinth.gateway.errors import invalid

# Every integer up to here is a double of its own, and no other becomes it.
INTEGER_MAX = 2**53 - 1


def from_struct(message: struct_pb2.Struct, path: str) -> dict[str, Any]:
    """The object; raises for a value that has no kind. ``path`` is where it stands in the request."""
    return {key: _from_value(value, path) for key, value in message.fields.items()}


def to_struct(content: Mapping[str, Any]) -> struct_pb2.Struct:
    """The message of an object of JSON."""
    message = struct_pb2.Struct()
    _fill(message, content)
    return message


def _from_value(value: struct_pb2.Value, path: str) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= INTEGER_MAX else number
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return from_struct(value.struct_value, path)
    if kind == "list_value":
        return [_from_value(item, path) for item in value.list_value.values]
    if kind == "null_value":
        return None
    raise invalid(path, "a value of it has no kind; write null_value for null")


def _fill(message: struct_pb2.Struct, content: Mapping[str, Any]) -> None:
    # What is empty is there all the same.
    message.SetInParent()
    for key, value in content.items():
        _put(message.fields[key], value)


def _put(message: struct_pb2.Value, value: Any) -> None:
    if value is None:
        message.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int | float):
        message.number_value = float(value)
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, Mapping):
        _fill(message.struct_value, value)
    else:
        message.list_value.SetInParent()
        for item in value:
            _put(message.list_value.values.add(), item)
