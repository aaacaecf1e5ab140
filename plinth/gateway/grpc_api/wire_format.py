"""How many objects a message of gRPC would become, counted in its bytes before it is decoded.

Two bytes of a message can be an object of a hundred, so the size of a message alone bounds nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from plinth.gateway.errors import ErrorKind, GatewayError, invalid

# A message of so many bytes is decoded whatever it is made of.
UNCOUNTED_BYTES = 256 * 1024
# Fields of all messages in it; the largest batch with a payload of two hundred fields each has as many.
FIELDS_MAX = 500_000
# Numbers of its packed lists, such as vectors: as many as REST takes.
NUMBERS_MAX = 4_000_000
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_SIZES = {
    FieldDescriptor.CPPTYPE_DOUBLE: 8,
    FieldDescriptor.CPPTYPE_FLOAT: 4,
    # One of these may be a single byte.
    FieldDescriptor.CPPTYPE_INT64: 1,
    FieldDescriptor.CPPTYPE_INT32: 1,
    FieldDescriptor.CPPTYPE_UINT64: 1,
    FieldDescriptor.CPPTYPE_UINT32: 1,
    FieldDescriptor.CPPTYPE_BOOL: 1,
    FieldDescriptor.CPPTYPE_ENUM: 1,
}


def check_size(content: bytes, descriptor: Any) -> None:
    """Raise for a message that would become too many objects, or that is cut off."""
    if len(content) <= UNCOUNTED_BYTES:
        return
    try:
        _count(content, descriptor)
    except IndexError:
        raise invalid("message", f"it is no {descriptor.full_name}") from None


def _count(content: bytes, descriptor: Any) -> None:
    at, end, fields_in = 0, len(content), _fields(descriptor)
    outer: list[tuple[int, dict[int, Any]]] = []
    fields = numbers = 0
    while True:
        if at >= end:
            if at > end:
                raise IndexError
            if not outer:
                return
            end, fields_in = outer.pop()
            continue
        tag, at = _varint(content, at)
        fields += 1
        if fields > FIELDS_MAX:
            raise _too_many()
        kind = tag & 7
        if kind == _DELIMITED:
            length, at = _varint(content, at)
            field = fields_in.get(tag >> 3, 0)
            if not isinstance(field, int):
                outer.append((end, fields_in))
                fields_in = _fields(field)
                if at + length > end:
                    raise IndexError
                end = at + length
                continue
            at += length
            if at > end:
                raise IndexError
            if field:
                numbers += length // field
                if numbers > NUMBERS_MAX:
                    raise _too_many()
        elif kind == _VARINT:
            _, at = _varint(content, at)
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise IndexError


def _too_many() -> GatewayError:
    return GatewayError(
        ErrorKind.resource_exhausted, "the message has too many values; send it in parts", too_large=True
    )


@cache
def _fields(descriptor: Any) -> dict[int, Any]:
    """By a field's number its message's descriptor, or the least bytes that a number of it takes, 0 for a text."""
    return {field.number: field.message_type or _SIZES.get(field.cpp_type, 0) for field in descriptor.fields}


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    byte = content[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = content[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise IndexError
