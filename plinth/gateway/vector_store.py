"""Qdrant as the gateway asks it: over gRPC where the server speaks it, else over REST.

Every failure leaves here as a :class:`GatewayError`, without a word of the server's own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import httpx
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from plinth.gateway.errors import (
    ErrorKind,
    GatewayError,
    collection_exists,
    collection_not_found,
    internal,
    timed_out,
    unavailable,
)
from plinth.gateway.qdrant_connection import QdrantConnection
from plinth.gateway.tenancy import MARK

# How long the gateway may take a collection for what it was.
DESCRIPTION_S = 5.0
Result = TypeVar("Result")
log = logging.getLogger("plinth.gateway.qdrant")


@dataclass(frozen=True)
class Description:
    """What the gateway has to know of a collection. ``organisation`` is whose it is, where the gateway made it."""

    dimension: int
    distance: models.Distance
    organisation: str | None


class VectorStore:
    """The operations on Qdrant that the gateway needs, each within a deadline in seconds."""

    def __init__(self, connection: QdrantConnection) -> None:
        self._connection = connection
        self._descriptions: dict[str, tuple[float, Description]] = {}

    async def close(self) -> None:
        """End its connections."""
        await self._connection.close()

    async def ready(self, within_s: float) -> None:
        """Raise where it does not answer."""
        await self._run(lambda client: client.get_collections(), within_s)

    async def collections(self, within_s: float) -> list[str]:
        """The names of all."""
        answer = await self._run(lambda client: client.get_collections(), within_s)
        return [collection.name for collection in answer.collections]

    async def describe(self, collection: str, within_s: float) -> Description:
        """A collection; raises NOT_FOUND. What is said may be five seconds old."""
        now = time.monotonic()
        at, description = self._descriptions.get(collection, (-math.inf, None))
        if description is None or now - at > DESCRIPTION_S:
            info = await self._run(lambda client: client.get_collection(collection), within_s)
            description = _description(info)
            self._descriptions[collection] = (now, description)
        return description

    async def create(self, collection: str, organisation: str, vectors: models.VectorParams, within_s: float) -> None:
        """Make a collection with the gateway's mark; raises ALREADY_EXISTS."""
        metadata = {MARK: {"organisation": organisation}}
        await self._run(
            lambda client: client.create_collection(collection, vectors_config=vectors, metadata=metadata), within_s
        )
        self._descriptions.pop(collection, None)

    async def drop(self, collection: str, within_s: float) -> None:
        """Remove a collection."""
        self._descriptions.pop(collection, None)
        await self._run(lambda client: client.delete_collection(collection), within_s)

    async def upsert(self, collection: str, points: Sequence[models.PointStruct], within_s: float) -> None:
        """Write points in one operation; they are searched when it returns."""
        await self._run(
            lambda client: client.upsert(collection, list(points), wait=True, timeout=_whole(within_s)), within_s
        )

    async def delete(self, collection: str, selector: models.Filter | list[str], within_s: float) -> None:
        """Delete points by a filter or by ids."""
        points: Any = (
            models.FilterSelector(filter=selector)
            if isinstance(selector, models.Filter)
            else models.PointIdsList(points=list(selector))
        )
        await self._run(lambda client: client.delete(collection, points, wait=True, timeout=_whole(within_s)), within_s)

    async def search(
        self, collection: str, requests: Sequence[models.QueryRequest], within_s: float
    ) -> list[list[models.ScoredPoint]]:
        """The points of each query."""
        answers = await self._run(
            lambda client: client.query_batch_points(collection, list(requests), timeout=_whole(within_s)), within_s
        )
        return [answer.points for answer in answers]

    async def retrieve(
        self, collection: str, ids: Sequence[str], vectors: bool, within_s: float
    ) -> list[models.Record]:
        """Those of the points that are there."""
        return await self._run(
            lambda client: client.retrieve(
                collection, list(ids), with_payload=True, with_vectors=vectors, timeout=_whole(within_s)
            ),
            within_s,
        )

    async def scroll(
        self,
        collection: str,
        condition: models.Filter | None,
        limit: int,
        offset: str | None,
        vectors: bool,
        within_s: float,
    ) -> tuple[list[models.Record], Any]:
        """A page, and the id that the next begins at."""
        return await self._run(
            lambda client: client.scroll(
                collection,
                condition,
                limit=limit,
                offset=offset,
                with_payload=True,
                with_vectors=vectors,
                timeout=_whole(within_s),
            ),
            within_s,
        )

    async def count(self, collection: str, condition: models.Filter | None, within_s: float) -> int:
        """How many points there are that meet the condition."""
        answer = await self._run(lambda client: client.count(collection, condition, timeout=_whole(within_s)), within_s)
        return answer.count

    async def _run(self, request: Callable[[AsyncQdrantClient], Awaitable[Result]], within_s: float) -> Result:
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                return await request(await self._connection.client())
        except TimeoutError:
            raise timed_out() from None
        except UnexpectedResponse as error:
            raise _of_status(error.status_code or 0, error.content) from None
        except ResponseHandlingException as error:
            timeout = isinstance(error.source, httpx.TimeoutException) and not isinstance(
                error.source, httpx.ConnectTimeout
            )
            log.warning("qdrant: %r", error.source)
            raise (timed_out() if timeout else unavailable()) from None
        except grpc.aio.AioRpcError as error:
            raise _of_code(error) from None


def _description(info: models.CollectionInfo) -> Description:
    vectors = info.config.params.vectors
    if not isinstance(vectors, models.VectorParams):
        # The gateway makes none with several vectors, and shares none.
        raise collection_not_found()
    mark = (info.config.metadata or {}).get(MARK)
    organisation = mark.get("organisation") if isinstance(mark, dict) else None
    return Description(vectors.size, vectors.distance, organisation if isinstance(organisation, str) else None)


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


_CODES = {
    grpc.StatusCode.NOT_FOUND: collection_not_found,
    grpc.StatusCode.ALREADY_EXISTS: collection_exists,
    grpc.StatusCode.DEADLINE_EXCEEDED: timed_out,
    grpc.StatusCode.UNAVAILABLE: unavailable,
    grpc.StatusCode.UNAUTHENTICATED: unavailable,
    grpc.StatusCode.PERMISSION_DENIED: unavailable,
}


def _of_code(error: grpc.aio.AioRpcError) -> GatewayError:
    code, details = error.code(), error.details() or ""
    if code in _CODES:
        return _CODES[code]()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return GatewayError(ErrorKind.resource_exhausted, "qdrant refuses more requests", retry_after_s=1)
    log.warning("qdrant answered %s: %s", code.name, details[:500])
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return collection_exists() if "already exists" in details else _refused(details)
    return internal()


def _refused(details: str) -> GatewayError:
    """A request that passed the gateway's own checks; its text may hold names of the stack, so it is not passed on."""
    if "dimension" in details.lower():
        return GatewayError(ErrorKind.invalid_argument, "vector dimension mismatch")
    if "index required" in details.lower():
        return GatewayError(ErrorKind.invalid_argument, "filter: a field without a payload index cannot be filtered by")
    return GatewayError(ErrorKind.invalid_argument, "the collection cannot do this request")
