"""Hits in groups by a payload field."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from plinth.embedded.queries import limit_of

ROUNDS = 6
DEFAULT_SIZE = 3
_STEP = re.compile(r'"(?P<quoted>[^"]+)"|(?P<plain>[^.\[\]"]+)|\[(?P<index>\d*)\]|\.')


def grouped(search: Callable[[dict[str, Any]], list[Any]], body: dict[str, Any], most: int) -> list[Any]:
    """The groups of a checked `points/query/groups`: ever more hits are read until there are enough.

    ``most`` is as many points as there are.
    """
    path, size, count = body["group_by"], body.get("group_size") or DEFAULT_SIZE, limit_of(body)
    plain = {key: value for key, value in body.items() if key not in ("group_by", "group_size")}
    limit = min(count * size * 2, most)
    groups: dict[Any, list[Any]] = {}
    for _ in range(ROUNDS):
        hits = search({**plain, "limit": limit, "with_payload": True})
        groups = _groups(hits, path, size)
        if _enough(groups, count, size) or len(hits) < limit or limit >= most:
            break
        limit = min(limit * 4, most)
    selector = body.get("with_payload", False)
    return [
        {"id": value, "hits": [_selected(hit, selector) for hit in group]}
        for value, group in list(groups.items())[:count]
    ]


def values_at(payload: Any, path: str) -> Iterator[Any]:
    """The values at a path such as `a.b[].c`; lists at its end are taken apart."""
    values = [payload]
    for step in _STEP.finditer(path):
        key, index = step["quoted"] or step["plain"], step["index"]
        if key is not None:
            values = [value[key] for value in values if isinstance(value, dict) and key in value]
        elif index is not None:
            lists = [value for value in values if isinstance(value, list)]
            values = [inner for value in lists for inner in (value[int(index) :][:1] if index else value)]
    for value in values:
        yield from value if isinstance(value, list) else [value]


def _enough(groups: dict[Any, list[Any]], count: int, size: int) -> bool:
    return len(groups) >= count and all(len(group) == size for group in list(groups.values())[:count])


def _groups(hits: list[Any], path: str, size: int) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for hit in hits:
        for value in dict.fromkeys(v for v in values_at(hit["payload"], path) if _is_group(v)):
            if len(groups.setdefault(value, [])) < size:
                groups[value].append(hit)
    return groups


def _is_group(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _selected(hit: dict[str, Any], selector: Any) -> dict[str, Any]:
    if selector is True:
        return hit
    bare = {name: value for name, value in hit.items() if name != "payload"}
    if not selector:
        return bare
    included = selector.get("include") if isinstance(selector, dict) else selector
    excluded = selector.get("exclude", []) if isinstance(selector, dict) else []
    payload = {k: v for k, v in hit["payload"].items() if (included is None or k in included) and k not in excluded}
    return {**bare, "payload": payload}
