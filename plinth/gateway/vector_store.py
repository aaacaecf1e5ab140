"""Qdrant as the gateway asks it.

Every failure leaves here as a :class:`GatewayError`, without a word of the server's own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from plinth.gateway.errors import (
    ErrorKind,
    GatewayError,
    collection_exists,
    collection_not_found,
    timed_out,
    unavailable,
)
from plinth.gateway.http_connections import ConnectionLostError
from plinth.gateway.qdrant_connection import QdrantConnection, collection_target
from plinth.gateway.qdrant_filters import Condition
from plinth.gateway.qdrant_tokens import Access
from plinth.gateway.tenancy import MARK
from plinth.gateway.tracing import Tracing
from plinth.gateway.write_order import PATIENCE_S

# How long the gateway may take a collection for what it was.
DESCRIPTION_S = 5.0
log = logging.getLogger("plinth.gateway.qdrant")
# A point, a record of one or a hit, as Qdrant's REST has it.
QdrantPoint = dict[str, Any]


@dataclass(frozen=True)
class Description:
    """What the gateway has to know of a collection. ``organisation`` is whose it is, where the gateway made it."""

    dimension: int
    distance: str
    organisation: str | None


@dataclass(frozen=True, slots=True)
class _Request:
    """A request of REST; without ``access`` it goes with the whole key, for what no token of a collection opens."""

    operation: str
    method: str
    target: str
    content: object = None
    collection: str | None = None
    access: Access | None = None


class VectorStore:
    """The operations on Qdrant that the gateway needs, each within a deadline in seconds."""

    def __init__(self, connection: QdrantConnection, tracing: Tracing | None = None) -> None:
        self._connection = connection
        self._tracing = tracing
        self._descriptions: dict[str, tuple[float, Description]] = {}

    async def close(self) -> None:
        """End its connections."""
        await self._connection.close()

    async def ready(self, within_s: float) -> None:
        """Raise where it does not answer."""
        await self.collections(within_s)

    async def collections(self, within_s: float) -> list[str]:
        """The names of all."""
        answer = await self._ask(_Request("list_collections", "GET", "/collections"), within_s)
        return [collection["name"] for collection in answer["collections"]]

    async def describe(self, collection: str, within_s: float) -> Description:
        """A collection; raises NOT_FOUND. What is said may be five seconds old."""
        now = time.monotonic()
        at, description = self._descriptions.get(collection, (-math.inf, None))
        if description is None or now - at > DESCRIPTION_S:
            target, access = collection_target(collection), Access(collection, "r")
            request = _Request("get_collection", "GET", target, collection=collection, access=access)
            description = _description(await self._ask(request, within_s))
            self._descriptions[collection] = (now, description)
        return description

    async def create(self, collection: str, organisation: str, vectors: Mapping[str, Any], within_s: float) -> None:
        """Make a collection with the gateway's mark; raises ALREADY_EXISTS."""
        content = {"vectors": vectors, "metadata": {MARK: {"organisation": organisation}}}
        target = collection_target(collection)
        await self._ask(_Request("create_collection", "PUT", target, content, collection), within_s)
        self._descriptions.pop(collection, None)

    async def drop(self, collection: str, within_s: float) -> None:
        """Remove a collection."""
        self._descriptions.pop(collection, None)
        target = collection_target(collection)
        await self._ask(_Request("delete_collection", "DELETE", target, collection=collection), within_s)

    async def upsert(self, collection: str, points: Sequence[QdrantPoint], within_s: float) -> None:
        """Write points in one operation; they are searched when it returns. It ends as :class:`WriteOrder` has it."""
        await self._write("upsert", "PUT", collection, "/points", {"points": points}, within_s)

    async def delete(self, collection: str, selector: Condition | list[str], within_s: float) -> None:
        """Delete points by a filter or by ids."""
        content = {"filter" if isinstance(selector, dict) else "points": selector}
        await self._write("delete", "POST", collection, "/points/delete", content, within_s)

    async def search(
        self, collection: str, requests: Sequence[Mapping[str, Any]], within_s: float
    ) -> list[list[QdrantPoint]]:
        """The points of each query."""
        if len(requests) == 1:
            answer = await self._read("query", collection, "/points/query", requests[0], within_s)
            return [answer["points"]]
        answers = await self._read("query_batch", collection, "/points/query/batch", {"searches": requests}, within_s)
        return [answer["points"] for answer in answers]

    async def retrieve(self, collection: str, ids: Sequence[str], vectors: bool, within_s: float) -> list[QdrantPoint]:
        """Those of the points that are there."""
        content = {"ids": ids, "with_payload": True, "with_vector": vectors}
        records: list[QdrantPoint] = await self._read("retrieve", collection, "/points", content, within_s)
        return records

    async def scroll(
        self,
        collection: str,
        condition: Condition | None,
        limit: int,
        offset: str | None,
        vectors: bool,
        within_s: float,
    ) -> tuple[list[QdrantPoint], Any]:
        """A page, and the id that the next begins at."""
        content = {
            "filter": condition,
            "limit": limit,
            "offset": offset,
            "with_payload": True,
            "with_vector": vectors,
        }
        answer = await self._read("scroll", collection, "/points/scroll", content, within_s)
        return answer["points"], answer["next_page_offset"]

    async def count(self, collection: str, condition: Condition | None, within_s: float) -> int:
        """How many points there are that meet the condition."""
        answer = await self._read("count", collection, "/points/count", {"filter": condition, "exact": True}, within_s)
        return int(answer["count"])

    async def _read(
        self, operation: str, collection: str, path: str, content: Mapping[str, Any], within_s: float
    ) -> Any:
        target = collection_target(collection, path, timeout=_whole(within_s))
        given = {key: value for key, value in content.items() if value is not None}
        request = _Request(operation, "POST", target, given, collection, Access(collection, "r"))
        return await self._ask(request, within_s)

    async def _write(
        self, operation: str, method: str, collection: str, path: str, content: object, within_s: float
    ) -> None:
        target = collection_target(collection, path, wait="true", timeout=_whole(within_s))
        request = _Request(operation, method, target, content, collection, Access(collection, "prw"))
        # Qdrant is told of the deadline; whoever has gone at it is not waited for here, but the write is.
        answer = await self._ask(request, within_s + PATIENCE_S)
        if answer["status"] != "completed":
            # It is in Qdrant's log, before whatever comes later.
            raise timed_out()

    async def _ask(self, request: _Request, within_s: float) -> Any:
        if self._tracing is None:
            return await self._result(request, within_s, {})
        with self._tracing.qdrant_span(request.operation, request.collection) as headers:
            return await self._result(request, within_s, headers)

    async def _result(self, request: _Request, within_s: float, headers: Mapping[str, str]) -> Any:
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                answer = await self._connection.send(
                    request.method, request.target, request.content, access=request.access, headers=headers
                )
            if answer.status != 200:
                raise _of_status(answer.status, answer.body)
            return orjson.loads(answer.body)["result"]
        except TimeoutError:
            raise timed_out() from None
        except (ConnectionLostError, OSError) as error:
            log.warning("qdrant: %s", error)
            raise unavailable() from None
        except (orjson.JSONDecodeError, KeyError, TypeError):
            log.warning("qdrant answered %s with something else than its API says", request.operation)
            raise unavailable() from None


def _description(info: Mapping[str, Any]) -> Description:
    vectors = info["config"]["params"].get("vectors") or {}
    dimension = vectors.get("size")
    if not isinstance(dimension, int):
        # The gateway makes none with several vectors, and shares none.
        raise collection_not_found()
    mark = (info["config"].get("metadata") or {}).get(MARK)
    organisation = mark.get("organisation") if isinstance(mark, dict) else None
    return Description(dimension, vectors["distance"], organisation if isinstance(organisation, str) else None)


def _whole(seconds: float) -> int:
    """Qdrant takes whole seconds; the gateway itself stops at the exact moment."""
    return max(1, math.ceil(seconds))


def _of_status(status: int, content: bytes) -> GatewayError:
    if status == 404:
        return collection_not_found()
    if status == 409 or (status == 400 and b"already exists" in content):
        return collection_exists()
    if status == 429:
        return GatewayError(ErrorKind.resource_exhausted, "qdrant refuses more requests", retry_after_s=1)
    log.warning("qdrant answered %s: %s", status, content[:500])
    if status in (408, 504):
        return timed_out()
    if status in (401, 403) or status >= 500:
        return unavailable()
    return _refused(content.decode(errors="replace"))


def _refused(details: str) -> GatewayError:
    """A request that passed the gateway's own checks; its text may hold names of the stack, so it is not passed on."""
    if "dimension" in details.lower():
        return GatewayError(ErrorKind.invalid_argument, "vector dimension mismatch")
    if "index required" in details.lower():
        return GatewayError(ErrorKind.invalid_argument, "filter: a field without a payload index cannot be filtered by")
    return GatewayError(ErrorKind.invalid_argument, "the collection cannot do this request")
