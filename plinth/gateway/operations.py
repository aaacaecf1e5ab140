"""The gateway's operations, for a caller who is known: the core that neither protocol is in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from plinth.gateway.audit import AuditLog, AuditRecord, abandoned
from plinth.gateway.caller import Caller, Scope
from plinth.gateway.embedding import Embedder
from plinth.gateway.errors import (
    ErrorKind,
    GatewayError,
    collection_exists,
    collection_not_found,
    dimension_mismatch,
    invalid,
    timed_out,
)
from plinth.gateway.metrics import GatewayMetrics
from plinth.gateway.model import (
    POINTS_MAX,
    QUERIES_MAX,
    Collection,
    CreateCollection,
    DeletePoints,
    Get,
    Hit,
    Page,
    Point,
    Scroll,
    Search,
    StoredPoint,
)
from plinth.gateway.qdrant_filters import Condition, has_id, qdrant_filter
from plinth.gateway.qdrant_points import hit_of, offset_of, points_to_store, query_request, stored_point
from plinth.gateway.rate_limits import RateLimits
from plinth.gateway.result_cache import Lookup, ResultCache
from plinth.gateway.tenancy import (
    ORGANISATION_FIELD,
    SharedCollection,
    Tenant,
    check_collection,
    parse_collection_name,
    tenant_of,
)
from plinth.gateway.vector_store import Description, VectorStore
from plinth.gateway.write_order import WriteOrder

_DISTANCES = {"Cosine": "Cosine", "Euclidean": "Euclid", "Dot": "Dot"}
_NAMES: Mapping[str, Any] = {"Cosine": "Cosine", "Euclid": "Euclidean", "Dot": "Dot", "Manhattan": "Manhattan"}
_RESULTS = TypeAdapter(list[list[Hit]])


@dataclass
class Call:
    """One request: who asks, until when (a time of :func:`time.monotonic`), and by which protocol."""

    caller: Caller
    request_id: str
    deadline: float
    protocol: str
    collection: str | None = None
    count: int = 0
    cached: bool = False
    audited: bool = False

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline; raises once it has passed."""
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise timed_out()
        return remaining


class Operations:
    """What a caller can do. Each operation raises :class:`GatewayError`, and is written to the audit log either way.

    ``reserved`` are the names of the stack's own collections and aliases, which no organisation gets.
    """

    def __init__(
        self,
        store: VectorStore,
        audit: AuditLog,
        *,
        shared: Mapping[str, SharedCollection] | None = None,
        reserved: frozenset[str] = frozenset(),
        embedder: Embedder | None = None,
        cache: ResultCache | None = None,
        limits: RateLimits | None = None,
        metrics: GatewayMetrics | None = None,
    ) -> None:
        self._store = store
        self._audit = audit
        self._shared = dict(shared or {})
        self._reserved = reserved
        self._embedder = embedder
        self._cache = cache
        self._limits = limits
        self._metrics = metrics
        self._order = WriteOrder()

    async def create_collection(self, call: Call, request: CreateCollection) -> Collection:
        """A new collection of the caller's organisation."""
        async with self.operation(call, "create_collection", Scope.admin, request.name):
            tenant = tenant_of(call.caller, check_collection(request.name, "name"), self._shared)
            if tenant.shared or tenant.collection in self._reserved:
                raise collection_exists()
            vectors: dict[str, Any] = {"size": request.dimension, "distance": _DISTANCES[request.distance]}
            if request.on_disk:
                vectors["on_disk"] = True
            if request.hnsw:
                vectors["hnsw_config"] = request.hnsw.model_dump(exclude_none=True)
            await self._store.create(tenant.collection, call.caller.organisation, vectors, call.remaining_s)
            await self._changed(tenant)
            return Collection(
                name=request.name, dimension=request.dimension, distance=request.distance, points=0, shared=False
            )

    async def list_collections(self, call: Call) -> list[str]:
        """The names of the organisation's collections and of the shared ones."""
        async with self.operation(call, "list_collections", Scope.read, None):
            names = set(self._shared)
            for physical in await self._store.collections(call.remaining_s):
                owner = parse_collection_name(physical)
                if owner and owner[0] == call.caller.organisation and physical not in self._reserved:
                    names.add(owner[1])
            call.count = len(names)
            return sorted(names)

    async def get_collection(self, call: Call, name: str) -> Collection:
        """A collection, and how many points the caller has in it."""
        async with self.operation(call, "get_collection", Scope.read, name):
            tenant, description = await self.tenant(call, name)
            points = await self._store.count(tenant.collection, tenant.filter(), call.remaining_s)
            return Collection(
                name=name,
                dimension=description.dimension,
                distance=_NAMES[description.distance],
                points=points,
                shared=tenant.shared is not None,
            )

    async def delete_collection(self, call: Call, name: str) -> None:
        """Remove a collection of the organisation with its points; a shared one is the stack's."""
        async with self.operation(call, "delete_collection", Scope.admin, name):
            tenant, _ = await self.tenant(call, name)
            if tenant.shared:
                raise GatewayError(
                    ErrorKind.permission_denied, "a shared collection is not deleted here; delete your points in it"
                )
            await self._write(call, tenant, lambda within_s: self._store.drop(tenant.collection, within_s))

    async def upsert(self, call: Call, name: str, points: Sequence[Point]) -> int:
        """Write points, all or none (BR-006); of two with one id the last is written (EC-008). Returns how many."""
        async with self.operation(call, "upsert", Scope.write, name):
            call.count = len(points)
            if not 1 <= len(points) <= POINTS_MAX:
                raise invalid("points", f"a batch has 1 to {POINTS_MAX} points")
            tenant, description = await self.tenant(call, name)
            written = points_to_store(tenant, points, description.dimension)
            await self._write(call, tenant, lambda within_s: self._store.upsert(tenant.collection, written, within_s))
            return len(written)

    async def delete(self, call: Call, name: str, request: DeletePoints) -> int:
        """Delete points of the caller's. Returns how many there were just before (BR-006)."""
        async with self.operation(call, "delete", Scope.write, name):
            tenant, _ = await self.tenant(call, name)
            selector: Condition | list[str]
            if request.ids is not None:
                call.count = len(request.ids)
                # An id's UUID is made of its owner too, so it is nobody else's point.
                selector = [tenant.own_id(given, f"ids.{at}") for at, given in enumerate(request.ids)]
                condition = has_id(selector)
            else:
                condition = qdrant_filter(request.filter) if request.filter else {}
                selector = tenant.filter(condition) or condition
            deleted = 0

            async def delete(within_s: float) -> None:
                nonlocal deleted
                deleted = await self._store.count(tenant.collection, tenant.filter(condition), within_s)
                if deleted:
                    await self._store.delete(tenant.collection, selector, within_s)

            await self._write(call, tenant, delete)
            return deleted

    async def get(self, call: Call, name: str, request: Get) -> list[StoredPoint]:
        """Points by their ids, in that order; those that are not there are left out (BR-007)."""
        async with self.operation(call, "get", Scope.read, name):
            call.count = len(request.ids)
            tenant, _ = await self.tenant(call, name)
            identifiers = [tenant.readable_id(given, f"ids.{at}") for at, given in enumerate(request.ids)]
            records = await self._store.retrieve(tenant.collection, identifiers, request.with_vectors, call.remaining_s)
            by_id = {str(record["id"]): record for record in records if tenant.reads(record.get("payload") or {})}
            return [stored_point(tenant, by_id[point], request.with_payload) for point in identifiers if point in by_id]

    async def scroll(self, call: Call, name: str, request: Scroll) -> Page:
        """A page of the points that the caller may read."""
        async with self.operation(call, "scroll", Scope.read, name):
            tenant, _ = await self.tenant(call, name)
            condition = tenant.read_filter(qdrant_filter(request.filter) if request.filter else None)
            records, offset = await self._store.scroll(
                tenant.collection,
                condition,
                request.limit,
                offset_of(request.cursor),
                request.with_vectors,
                call.remaining_s,
            )
            call.count = len(records)
            return Page(
                points=[stored_point(tenant, record, request.with_payload) for record in records],
                next=str(offset) if offset is not None else None,
            )

    async def search(self, call: Call, name: str, request: Search) -> list[Hit]:
        """The nearest points."""
        return (await self.search_batch(call, name, [request], operation="search"))[0]

    async def search_batch(
        self, call: Call, name: str, requests: Sequence[Search], *, operation: str = "search_batch"
    ) -> list[list[Hit]]:
        """The nearest points of several queries; hybrid ones may be among them."""
        async with self.operation(call, operation, Scope.read, name):
            call.count = len(requests)
            if not 1 <= len(requests) <= QUERIES_MAX:
                raise invalid("searches", f"a batch has 1 to {QUERIES_MAX} searches")
            tenant, description = await self.tenant(call, name)
            lookup = await self._lookup(call.caller.user, tenant, requests)
            if lookup.result is not None:
                call.cached = True
                return _RESULTS.validate_json(lookup.result)
            queries = await self._queries(call, tenant, description, requests)
            answers = await self._store.search(tenant.collection, queries, call.remaining_s)
            results = [
                [hit_of(tenant, point, request.with_payload) for point in points]
                for request, points in zip(requests, answers, strict=True)
            ]
            if self._cache and lookup.key:
                await self._cache.keep(lookup, _RESULTS.dump_json(results))
            return results

    @asynccontextmanager
    async def operation(self, call: Call, name: str, scope: Scope, collection: str | None) -> AsyncIterator[None]:
        """What holds for every operation: the scope, the audit, and that no fault of ours is told in its own words."""
        began = time.monotonic()
        call.collection = collection
        outcome = ErrorKind.internal.value
        try:
            self._audit.admit()
            call.caller.require(scope)
            if self._limits:
                await self._limits.admit(call.caller)
            yield
            outcome = "OK"
        except GatewayError as error:
            outcome = error.kind.value
            raise
        except asyncio.CancelledError:
            outcome = abandoned(call.deadline)
            raise
        finally:
            call.audited = True
            seconds = time.monotonic() - began
            if self._metrics:
                self._metrics.operation(name, call.protocol, outcome, seconds)
            self._audit.write(
                AuditRecord(
                    name, call.request_id, call.caller, collection, call.count, outcome, seconds * 1000, call.protocol
                )
            )

    async def tenant(self, call: Call, name: str) -> tuple[Tenant, Description]:
        """A collection as the caller may use it, and what it is; raises NOT_FOUND for one that is not theirs."""
        tenant = self.named(call.caller, name)
        description = await self._store.describe(tenant.collection, call.remaining_s)
        if not tenant.shared and description.organisation != call.caller.organisation:
            raise collection_not_found()
        return tenant, description

    def named(self, caller: Caller, name: str) -> Tenant:
        """What a caller means by a name, without asking Qdrant whether it is there."""
        tenant = tenant_of(caller, name, self._shared)
        if not tenant.shared and tenant.collection in self._reserved:
            raise collection_not_found()
        return tenant

    async def count_points(self, call: Call, tenant: Tenant, point_ids: Sequence[str]) -> int:
        """How many of Qdrant's ids are there."""
        return await self._store.count(tenant.collection, tenant.filter(has_id(point_ids)), call.remaining_s)

    async def _write(self, call: Call, tenant: Tenant, write: Callable[[float], Awaitable[None]]) -> None:
        """A write within what is left of the call's time; searches that begin after it see it."""

        async def landed() -> None:
            await self._changed(tenant)

        await self._order.write(tuple(_cache_scope(tenant)), write, call.remaining_s, landed)
        await landed()

    async def _changed(self, tenant: Tenant) -> None:
        if self._cache:
            await self._cache.move(_cache_scope(tenant))

    async def _lookup(self, user: str, tenant: Tenant, requests: Sequence[Search]) -> Lookup:
        if not self._cache:
            return Lookup()
        query: list[Any] = [[type(request).__name__, request.model_dump(mode="json")] for request in requests]
        if tenant.public_field is not None or any(request.preset is not None for request in requests):
            # Users of one scope may get different answers: of one's own points, and of a preset that names its caller.
            query.append(user)
        return await self._cache.lookup(_cache_scope(tenant), query)

    async def _queries(
        self, call: Call, tenant: Tenant, description: Description, requests: Sequence[Search]
    ) -> list[dict[str, Any]]:
        vectors = await self._vectors(call, description, requests)
        return [
            query_request(call.caller, tenant, request, vector)
            for request, vector in zip(requests, vectors, strict=True)
        ]

    async def _vectors(self, call: Call, description: Description, requests: Sequence[Search]) -> list[list[float]]:
        """The vector of each query, its own or its text's."""
        for at, request in enumerate(requests):
            if request.vector is not None and len(request.vector) != description.dimension:
                raise dimension_mismatch(_at(at, requests, "vector"), len(request.vector), description.dimension)
        texts = [request.text for request in requests if request.vector is None and request.text is not None]
        if not texts:
            return [request.vector or [] for request in requests]
        if self._embedder is None or self._embedder.dimension != description.dimension:
            raise invalid("text", "no model of the gateway embeds texts for this collection; send a vector")
        embedded = iter(await self._embedder.embed(texts, call.remaining_s))
        return [request.vector if request.vector is not None else next(embedded) for request in requests]


def _at(at: int, requests: Sequence[Any], name: str) -> str:
    return name if len(requests) == 1 else f"searches.{at}.{name}"


def _cache_scope(tenant: Tenant) -> list[str]:
    """Within what a write changes answers: of the user alone, or where points are shared, of the organisation."""
    owner = tenant.owner.values() if tenant.public_field is None else [tenant.owner[ORGANISATION_FIELD]]
    return [tenant.collection, *owner]
