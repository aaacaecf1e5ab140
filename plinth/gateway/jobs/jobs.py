"""Jobs as callers ask for them, whatever the protocol."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson

from plinth.gateway.caller import Scope
from plinth.gateway.embedding import Embedder
from plinth.gateway.errors import ErrorKind, GatewayError, dimension_mismatch, invalid, timed_out
from plinth.gateway.jobs.leases import encode_batch
from plinth.gateway.jobs.model import (
    BATCH_MAX,
    CONTENT_MAX_BYTES,
    ITEMS_MAX,
    KEY_MAX,
    BatchItem,
    EmbedItem,
    Job,
    JobStatus,
    Kind,
    NewJob,
    StoredJob,
)
from plinth.gateway.jobs.store import JobStore
from plinth.gateway.operations import Call, Operations
from plinth.gateway.providers.mock import MODEL, VERSION
from plinth.gateway.tenancy import Tenant, check_id, point_id, segment_id

NAMESPACE = uuid.UUID("0c3a61a5-9a0e-5c0f-8f0e-6f1f6a1c52d4")
MOCK_COLLECTION = "embeddings"
DEAD_MAX = 1000
# Ids of one question to Qdrant.
_COUNT_MAX = 1000


class Jobs:
    """What a caller can do with jobs. Each method raises :class:`GatewayError` and is audited as operations are."""

    def __init__(self, operations: Operations, store: JobStore, embedder: Embedder) -> None:
        self._operations = operations
        self._store = store
        self._embedder = embedder

    async def create_mock(self, call: Call, asset_id: str, segment: str, *, idempotency_key: str | None = None) -> Job:
        """A job that writes the mock vector of a segment into the collection `embeddings` (S0-04)."""
        async with self._operations.operation(call, "create_job", Scope.write, MOCK_COLLECTION):
            call.count = 1
            for value, path in ((asset_id, "asset_id"), (segment, "segment_id")):
                check_id(value, path)
            tenant = await self._tenant(call, MOCK_COLLECTION, "VECTOR_SIZE")
            given = check_id(segment_id(asset_id, segment, MODEL, VERSION), "segment_id")
            payload = {
                "asset_id": asset_id,
                "segment_id": segment,
                "model": MODEL,
                "model_ver": VERSION,
                "text": f"mock text of {asset_id}, {segment}",
            }
            parameters = {"point_id": point_id(tenant, given), "asset_id": asset_id, "segment_id": segment}
            item = EmbedItem(id=given, text=payload["text"][:1000], payload=payload)
            job = _new_job(call, tenant, Kind.mock, [item], parameters, [MODEL, VERSION, self._embedder.dimension])
            return await self._create(call, tenant, job, idempotency_key)

    async def create_embed(
        self, call: Call, collection: str, items: Sequence[EmbedItem], *, idempotency_key: str | None = None
    ) -> Job:
        """A job that embeds texts and writes the points; of two items with one id the last is written.

        The same items for the same collection are the same job. It is done again where a later job has changed a point
        of it, or where one is gone.
        """
        async with self._operations.operation(call, "create_job", Scope.write, collection):
            call.count = len(items)
            if not 1 <= len(items) <= ITEMS_MAX:
                raise invalid("items", f"a job has 1 to {ITEMS_MAX} items")
            tenant = await self._tenant(call, collection, "items")
            model = [self._embedder.model, self._embedder.version, self._embedder.dimension]
            parameters = {"model": self._embedder.model, "model_ver": self._embedder.version}
            # Ten thousand hashes are not for the event loop.
            job = await asyncio.to_thread(_new_job, call, tenant, Kind.embed, items, parameters, model)
            return await self._create(call, tenant, job, idempotency_key)

    async def get(self, call: Call, job_id: str) -> Job:
        """A job of the organisation."""
        async with self._operations.operation(call, "get_job", Scope.read, None), _deadline(call):
            return (await self._store.get(call.caller.organisation, _parsed(job_id))).to_job()

    async def cancel(self, call: Call, job_id: str) -> Job:
        """End a job; what it has written stays, and one that has ended stays as it is."""
        async with self._operations.operation(call, "cancel_job", Scope.write, None), _deadline(call):
            return (await self._store.cancel(call.caller.organisation, _parsed(job_id))).to_job()

    async def list_dead(self, call: Call, limit: int = 100) -> list[Job]:
        """Jobs that failed and are not tried again, the last first."""
        async with self._operations.operation(call, "list_dead_jobs", Scope.read, None):
            if not 1 <= limit <= DEAD_MAX:
                raise invalid("limit", f"1 to {DEAD_MAX} jobs are listed")
            async with _deadline(call):
                jobs = await self._store.dead(call.caller.organisation, limit)
            call.count = len(jobs)
            return [job.to_job() for job in jobs]

    async def replay(self, call: Call, job_id: str) -> Job:
        """Try a job again that failed."""
        async with self._operations.operation(call, "replay_job", Scope.write, None), _deadline(call):
            return (await self._store.replay(call.caller.organisation, _parsed(job_id))).to_job()

    async def _tenant(self, call: Call, collection: str, path: str) -> Tenant:
        """The collection, checked as far as Qdrant answers: where it is away, the job waits for it."""
        try:
            tenant, description = await self._operations.tenant(call, collection)
        except GatewayError as error:
            if error.kind not in (ErrorKind.unavailable, ErrorKind.deadline_exceeded):
                raise
            return self._operations.named(call.caller, collection)
        if description.dimension != self._embedder.dimension:
            raise dimension_mismatch(path, self._embedder.dimension, description.dimension)
        return tenant

    async def _create(self, call: Call, tenant: Tenant, job: NewJob, idempotency_key: str | None) -> Job:
        if idempotency_key is not None and not (
            0 < len(idempotency_key) <= KEY_MAX and idempotency_key.isprintable() and idempotency_key.isascii()
        ):
            raise invalid("idempotency_key", f"a key is 1 to {KEY_MAX} printable characters of ASCII")
        async with _deadline(call):
            existing = await self._store.find(job.org_id, job.id)
            missing = existing is not None and await self._lacks_points(call, tenant, job, existing)
            return (await self._store.create(job, idempotency_key, points_missing=missing)).to_job()

    async def _lacks_points(self, call: Call, tenant: Tenant, job: NewJob, existing: StoredJob) -> bool:
        """Whether a point that a job has written is gone, as far as Qdrant answers."""
        if existing.status != JobStatus.completed:
            return False
        try:
            for start in range(0, len(job.point_ids), _COUNT_MAX):
                identifiers = job.point_ids[start : start + _COUNT_MAX]
                if await self._operations.count_points(call, tenant, identifiers) < len(identifiers):
                    return True
        except GatewayError as error:
            if error.kind is ErrorKind.not_found:
                return True
            if error.kind is not ErrorKind.unavailable:
                raise
        return False


@asynccontextmanager
async def _deadline(call: Call) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(call.remaining_s):
            yield
    except TimeoutError:
        raise timed_out() from None


def _new_job(
    call: Call, tenant: Tenant, kind: Kind, items: Sequence[EmbedItem], parameters: dict[str, Any], model: list[Any]
) -> NewJob:
    """The job, its id a UUIDv5 of the organisation and the rest; raises for the first item that cannot be a point."""
    batch_items: dict[str, BatchItem] = {}
    for at, item in enumerate(items):
        identifier = tenant.own_id(item.id, f"items.{at}.id")
        tenant.payload(item.id, item.payload, f"items.{at}.payload")
        batch_items.pop(identifier, None)
        batch_items[identifier] = BatchItem(item.id, identifier, item.text, item.payload)
    ordered = list(batch_items.values())
    try:
        batches = [encode_batch(ordered[start : start + BATCH_MAX]) for start in range(0, len(ordered), BATCH_MAX)]
        content = orjson.dumps([item.payload for item in ordered], option=orjson.OPT_SORT_KEYS)
    except TypeError:
        raise invalid("items", "texts and payloads are JSON in UTF-8, with integers of 64 bits") from None
    if sum(map(len, batches)) > CONTENT_MAX_BYTES:
        raise GatewayError(
            ErrorKind.invalid_argument,
            f"a job has {CONTENT_MAX_BYTES} bytes of texts and payloads at most",
            too_large=True,
        )
    fingerprint = hashlib.sha256(orjson.dumps([kind, tenant.collection, model]))
    for batch_item in ordered:
        for part in (batch_item.point_id, batch_item.text):
            fingerprint.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    fingerprint.update(content)
    return NewJob(
        id=uuid.uuid5(NAMESPACE, json.dumps([call.caller.organisation, fingerprint.hexdigest()])),
        org_id=call.caller.organisation,
        user_id=call.caller.user,
        kind=kind,
        collection=tenant.name,
        qdrant_collection=tenant.collection,
        parameters=parameters,
        point_ids=list(batch_items),
        batches=batches,
    )


def _parsed(job_id: str) -> UUID:
    try:
        return UUID(job_id)
    except ValueError:
        raise GatewayError(ErrorKind.not_found, "job not found") from None
