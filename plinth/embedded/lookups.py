"""Requests that read two collections: `lookup_from` and `with_lookup`. The front does it, for an engine has one alone.

What is looked up is put into the request, or into the answer, so that the engine of the collection never sees it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Required
from uuid import UUID

import orjson
from pydantic import TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from plinth.embedded.errors import ApiError, from_validation, malformed
from plinth.embedded.request_types import STRICT, WithPayload, WithVector, unsupported

MARKS = (b'"lookup_from"', b'"with_lookup"')
Call = Callable[[str, str, dict[str, Any]], Awaitable[Any]]
"""From a collection's name, an operation and its body to the result; raises :class:`ApiError`."""


@with_config(STRICT)
class LookupFrom(TypedDict, total=False):
    """Where the ids of a query are points."""

    collection: Required[str]
    vector: str | None
    shard_key: unsupported("shard keys")  # type: ignore[valid-type]


@with_config(STRICT)
class WithLookup(TypedDict, total=False):
    """Where the ids of groups are points."""

    collection: Required[str]
    with_payload: WithPayload | None
    with_vectors: WithVector | None


class Split(TypedDict):
    """A request without its lookups, and the one that its answer needs."""

    body: bytes
    with_lookup: dict[str, Any] | None


_FROM, _WITH = TypeAdapter(LookupFrom), TypeAdapter(WithLookup)


async def resolved(body: bytes, call: Call) -> Split:
    """A request whose `lookup_from` are replaced by the vectors, and whose `with_lookup` is taken out."""
    if not any(mark in body for mark in MARKS):
        return {"body": body, "with_lookup": None}
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise malformed(str(error)) from error
    if not isinstance(request, dict):
        return {"body": body, "with_lookup": None}
    given = request.pop("with_lookup", None)
    lookup = None if given is None else _checked(_WITH, _spelled(given))
    for stage in _stages(request):
        await _replace(stage, call)
    return {"body": orjson.dumps(request), "with_lookup": lookup}


async def completed(groups: list[dict[str, Any]], lookup: dict[str, Any], call: Call) -> None:
    """Put the looked-up point into each group whose id is one."""
    body: dict[str, Any] = {"ids": [group["id"] for group in groups if _is_id(group["id"])]}
    body["with_payload"] = lookup.get("with_payload", True)
    body["with_vector"] = lookup.get("with_vectors") or False
    points = {point["id"]: point for point in await call(lookup["collection"], "retrieve", body)}
    for group in groups:
        if group["id"] in points:
            group["lookup"] = points[group["id"]]


def _spelled(given: Any) -> Any:
    """A name alone is a collection; `with_vector` is another word for `with_vectors` here."""
    if isinstance(given, dict) and "with_vectors" not in given:
        return {"with_vectors" if key == "with_vector" else key: value for key, value in given.items()}
    return {"collection": given} if isinstance(given, str) else given


def _checked(adapter: TypeAdapter[Any], value: Any) -> dict[str, Any]:
    try:
        checked: dict[str, Any] = adapter.validate_python(value)
    except ValidationError as error:
        raise from_validation(error) from error
    return checked


def _stages(request: Any) -> Iterator[dict[str, Any]]:
    """A request, each of its searches and each of their prefetches."""
    waiting = [request]
    while waiting:
        stage = waiting.pop()
        if isinstance(stage, dict):
            yield stage
            for key in ("searches", "prefetch"):
                inner = stage.get(key)
                waiting += inner if isinstance(inner, list) else [inner]


async def _replace(stage: dict[str, Any], call: Call) -> None:
    where = stage.pop("lookup_from", None)
    if where is None:
        return
    lookup = _checked(_FROM, where)
    name = lookup.get("vector") or ""

    async def vector(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | str):
            return value
        body = {"ids": [value], "with_payload": False, "with_vector": [name] if name else True}
        points = await call(lookup["collection"], "retrieve", body)
        if not points:
            raise ApiError(404, f"Not found: No point with id {value} found")
        stored = points[0].get("vector")
        found = stored.get(name) if isinstance(stored, dict) and "indices" not in stored else stored
        if found is None or (name and found is stored):
            raise ApiError(404, f'Not found: Vector with name "{name}" for point {value} not found')
        return found

    for holder, key in _examples(stage):
        value = holder[key]
        holder[key] = [await vector(one) for one in value] if key in _LISTS else await vector(value)
    for pair in _pairs(stage):
        for side in pair.keys() & _LISTS:
            pair[side] = await vector(pair[side])


_LISTS = {"positive", "negative"}


def _examples(stage: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where ids may stand: the query itself, its target, or lists of examples."""
    query = stage.get("query")
    inner = [query.get("recommend"), query.get("discover")] if isinstance(query, dict) else []
    for holder in [stage, query, *inner]:
        if isinstance(holder, dict):
            yield from ((holder, key) for key in ("query", "nearest", "target") if key in holder)
            yield from ((holder, key) for key in _LISTS if isinstance(holder.get(key), list))


def _pairs(stage: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pairs of a context, each side of which may be an id."""
    query = stage.get("query")
    if not isinstance(query, dict):
        return
    discover = query.get("discover")
    for context in (query.get("context"), discover.get("context") if isinstance(discover, dict) else None):
        for pair in context if isinstance(context, list) else [context]:
            if isinstance(pair, dict):
                yield pair


def _is_id(value: Any) -> bool:
    if isinstance(value, int):
        return value >= 0
    try:
        UUID(value)
    except ValueError:
        return False
    return True
