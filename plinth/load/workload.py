"""The requests of a run and what is right about their answers; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from plinth.load.dataset import TOP

SCRATCH = "load.scratch"
FIRST_SCRATCH_ID = 1_000_000_000
BATCH = 100
PAGE = 20

Check = Callable[[Any], str | None]


@dataclass(frozen=True)
class Call:
    """One request with its body encoded; ``check`` takes the answer's `result` and says what is wrong with it."""

    method: str
    path: str
    body: bytes | None
    check: Check


class Workload:
    """Operations on one collection by name, each within one tenant.

    ``count`` points have the ids from 0 on; ``queries`` is (q, d) with a tenant and a part of speech for each row.
    What a run writes belongs to a tenant of its own and has ids of its own.
    """

    def __init__(
        self,
        collection: str,
        params: Mapping[str, Any],
        count: int,
        queries: npt.NDArray[np.float32],
        tenants: list[str],
        parts: list[str],
    ) -> None:
        self._points = f"/collections/{collection}/points"
        self._params = params
        self._count = count
        self._queries = queries
        self._tenants = tenants
        self._parts = parts
        # Encoded once: a list of 768 floats costs a millisecond of JSON.
        self._searches = [self._search_body(row, None) for row in range(len(queries))]
        self._filtered = [self._search_body(row, parts[row]) for row in range(len(queries))]
        self._written = 0
        self._deleted = 0

    def call(self, name: str, number: int) -> Call:
        """The request of an operation; ``number`` selects the query or the point."""
        calls: dict[str, Callable[[int], Call]] = {
            "search": self._search,
            "filtered_search": self._filtered_search,
            "get": self._get,
            "scroll": self._scroll,
            "upsert": lambda row: self._upsert(row, 1),
            "upsert_batch_100": lambda row: self._upsert(row, BATCH),
            "delete": self._delete,
        }
        return calls[name](number)

    def _search(self, number: int) -> Call:
        row = number % len(self._searches)
        return Call("POST", f"{self._points}/query", self._searches[row], _hits({"org_id": self._tenants[row]}, 1))

    def _filtered_search(self, number: int) -> Call:
        row = number % len(self._filtered)
        wanted = {"org_id": self._tenants[row], "model": self._parts[row]}
        return Call("POST", f"{self._points}/query", self._filtered[row], _hits(wanted, 0))

    def _get(self, number: int) -> Call:
        # A prime step spreads the ids: one hot point would always be cached.
        identifier = number * 7919 % self._count

        def check(result: Any) -> str | None:
            return None if result["id"] == identifier else f"asked for point {identifier}, got {result['id']}"

        return Call("GET", f"{self._points}/{identifier}", None, check)

    def _scroll(self, number: int) -> Call:
        tenant = self._tenants[number % len(self._tenants)]
        body = orjson.dumps({"filter": within(tenant), "limit": PAGE, "with_payload": True})
        return Call("POST", f"{self._points}/scroll", body, _hits({"org_id": tenant}, 1))

    def _upsert(self, number: int, count: int) -> Call:
        first = FIRST_SCRATCH_ID + self._written
        self._written += count
        points = [
            {
                "id": first + offset,
                "vector": self._queries[(number + offset) % len(self._queries)],
                "payload": {"org_id": SCRATCH, "model": "scratch"},
            }
            for offset in range(count)
        ]
        body = orjson.dumps({"points": points}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Call("PUT", f"{self._points}?wait=true", body, _completed)

    def _delete(self, _number: int) -> Call:
        # Oldest first; before the first upsert an id that is not there, which the server accepts.
        identifier = FIRST_SCRATCH_ID + self._deleted
        self._deleted += 1
        body = orjson.dumps({"points": [identifier]})
        return Call("POST", f"{self._points}/delete?wait=true", body, _completed)

    def _search_body(self, row: int, part: str | None) -> bytes:
        body = {
            "query": self._queries[row],
            "filter": within(self._tenants[row], part),
            "limit": TOP,
            "with_payload": ["org_id", "model"],
            "params": self._params,
        }
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def within(tenant: str, part: str | None = None) -> dict[str, Any]:
    """Qdrant's filter for a tenant, and for a part of speech within it."""
    must = [{"key": "org_id", "match": {"value": tenant}}]
    return {"must": [*must, {"key": "model", "match": {"value": part}}] if part else must}


def _hits(wanted: Mapping[str, str], at_least: int) -> Check:
    def check(result: Any) -> str | None:
        found = result["points"]
        for key, value in wanted.items():
            strangers = sorted({str(point["payload"][key]) for point in found} - {value})
            if strangers:
                return f"a request within {value} returned a point of {strangers[0]}"
        if len(found) < at_least:
            return f"found nothing within {', '.join(wanted.values())}"
        return None

    return check


def _completed(result: Any) -> str | None:
    return None if result["status"] == "completed" else f"the write was {result['status']}, not completed"
