"""Bodies of requests: read within bounds, and JSON that means one thing."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import orjson
from starlette.requests import Request

from plinth.gateway.errors import ErrorKind, GatewayError, invalid

DEPTH_MAX = 64
# From here on orjson makes a float of an integer.
INTEGER_MAX = 2**63
_NUMBERS = {int, float}
# What a body becomes in memory at most: an object takes up to two hundred bytes, however few it has in the body. The
# largest batch of vectors takes a third.
MEMORY_MAX_BYTES = 160 * 2**20
# At least what Python takes for what each sign begins or parts.
_COSTS = ((b",", 32), (b"[", 90), (b"{", 130), (b":", 100), (b'"', 30))


class BoundedRequest(Request):
    """A request whose body has a size at most, and is JSON without double keys, NaN or depths."""

    body_bytes: int

    async def body(self) -> bytes:
        """The whole body; raises for one that is too large, before it is read where its length is told."""
        if not hasattr(self, "_body"):
            if self.headers.get("content-encoding", "identity").strip().lower() != "identity":
                raise invalid("content-encoding", "a body is sent as it is, without compression")
            told = self.headers.get("content-length", "")
            if told.isdigit() and int(told) > self.body_bytes:
                raise too_large(self.body_bytes)
            chunks, size = [], 0
            async for chunk in self.stream():
                size += len(chunk)
                if size > self.body_bytes:
                    raise too_large(self.body_bytes)
                chunks.append(chunk)
            self._body = b"".join(chunks)
        return self._body

    async def json(self) -> Any:
        """The body as JSON."""
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json


def too_large(limit: int) -> GatewayError:
    """A request beyond its size."""
    return GatewayError(ErrorKind.resource_exhausted, f"a request has {limit} bytes at most", too_large=True)


def parse(body: bytes) -> Any:
    """JSON that every reader takes for the same; raises :class:`GatewayError`."""
    if sum(cost * body.count(sign) for sign, cost in _COSTS) > MEMORY_MAX_BYTES:
        raise GatewayError(
            ErrorKind.resource_exhausted, "the request has too many values; send it in parts", too_large=True
        )
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        # What is wrong with it is said below.
        return _parsed(body)
    if _is_plain(content, body.count(b":")):
        return content
    # The parser of Python takes ten times as long: it is for what orjson cannot be trusted with.
    del content
    return _parsed(body)


def _is_plain(content: Any, colons: int) -> bool:
    """Whether orjson lost nothing: no key that was there twice, no integer too large, no more levels than may be.

    ``colons`` are those of the whole text. Each key has one, so there are as many keys only where none was there twice.
    """
    keys, layer = 0, [content]
    for _ in range(DEPTH_MAX):
        inner: list[Any] = []
        for outer in layer:
            if isinstance(outer, dict):
                keys += len(outer)
                values: Any = outer.values()
            else:
                values = outer if isinstance(outer, list) else (outer,)
            types = set(map(type, values))
            if float in types and _has_large(values if types <= _NUMBERS else _floats(values)):
                return False
            if dict in types or list in types:
                inner += [value for value in values if isinstance(value, dict | list)]
        if not inner:
            return keys == colons
        layer = inner
    return False


def _has_large(numbers: Collection[float]) -> bool:
    return max(numbers) >= INTEGER_MAX or min(numbers) <= -INTEGER_MAX


def _floats(values: Iterable[Any]) -> list[float]:
    return [value for value in values if type(value) is float]


def _parsed(body: bytes) -> Any:
    """The same by Python's own parser, which sees each key; raises for all that is wrong."""
    try:
        content = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_refused)
    except UnicodeDecodeError:
        raise invalid("body", "it is not UTF-8") from None
    except RecursionError:
        raise invalid("body", f"it is {DEPTH_MAX} levels deep at most") from None
    except json.JSONDecodeError as error:
        raise invalid("body", f"it is not JSON: {error.msg.lower()} at byte {error.pos}") from None
    except ValueError as error:
        # A number of thousands of digits.
        raise invalid("body", "it has a number that is none") from error
    if _depth_exceeds(content, DEPTH_MAX):
        raise invalid("body", f"it is {DEPTH_MAX} levels deep at most")
    if _has_surrogates(body):
        raise invalid("body", "it has half of a surrogate pair, which no text can hold")
    return content


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [key for key, _ in pairs]
        double = next(key for key in names if names.count(key) > 1)
        raise invalid(double[:64], "this key is there twice in one object")
    return content


def _refused(constant: str) -> Any:
    raise invalid("body", f"{constant} is no number of JSON")


def _depth_exceeds(content: Any, levels: int) -> bool:
    layer = [content] if isinstance(content, dict | list) else []
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(layer)


def _has_surrogates(body: bytes) -> bool:
    """Whether an escape makes a text that UTF-8 cannot hold; whole pairs are one sign each."""
    if rb"\ud" not in body.lower():
        return False
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
