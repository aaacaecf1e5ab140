"""The routes of jobs: the first document's own paths (S0-04), and those below `/v1`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.routing import APIRoute
from pydantic import Field, StrictStr

from plinth.gateway.jobs.jobs import Jobs
from plinth.gateway.jobs.model import ITEMS_MAX, EmbedItem, Job
from plinth.gateway.model import Message
from plinth.gateway.rest_api.headers import IDEMPOTENCY_KEY
from plinth.gateway.rest_api.routes import REFUSALS, Calling, CollectionName

IdempotencyKey = Annotated[
    str | None,
    Header(alias=IDEMPOTENCY_KEY, description="The same key is the same job; with another request it is refused."),
]


class MockSegment(Message):
    """A segment whose mock vector is written."""

    asset_id: Annotated[StrictStr, Field(min_length=1)]
    segment_id: Annotated[StrictStr, Field(min_length=1)]


class MockJob(Message):
    """The job of a segment."""

    job_id: str
    asset_id: str
    segment_id: str


class EmbedRequest(Message):
    """Texts to embed and write."""

    items: list[EmbedItem] = Field(min_length=1, max_length=ITEMS_MAX)


class EmbedJob(Message):
    """The job of some texts."""

    job_id: str
    items: int


class DeadJobs(Message):
    """Jobs that failed and are not tried again."""

    jobs: list[Job]


def job_routes(jobs: Jobs, *, route_class: type[APIRoute]) -> APIRouter:
    """Every route, over the jobs."""
    router = APIRouter(route_class=route_class, responses=REFUSALS, tags=["jobs"])

    @router.post("/vectors/mock", status_code=202)
    async def create_mock(call: Calling, request: MockSegment, idempotency_key: IdempotencyKey = None) -> MockJob:
        job = await jobs.create_mock(call, request.asset_id, request.segment_id, idempotency_key=idempotency_key)
        return MockJob(job_id=job.id, asset_id=request.asset_id, segment_id=request.segment_id)

    @router.post("/v1/collections/{collection}/embed", status_code=202)
    async def create_embed(
        call: Calling, collection: CollectionName, request: EmbedRequest, idempotency_key: IdempotencyKey = None
    ) -> EmbedJob:
        job = await jobs.create_embed(call, collection, request.items, idempotency_key=idempotency_key)
        return EmbedJob(job_id=job.id, items=len(request.items))

    @router.get("/v1/jobs/dead")
    async def list_dead(call: Calling, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> DeadJobs:
        return DeadJobs(jobs=await jobs.list_dead(call, limit))

    @router.get("/jobs/{job_id}")
    @router.get("/v1/jobs/{job_id}", include_in_schema=False)
    async def get_job(call: Calling, job_id: str) -> Job:
        return await jobs.get(call, job_id)

    @router.delete("/jobs/{job_id}")
    @router.delete("/v1/jobs/{job_id}", include_in_schema=False)
    async def cancel_job(call: Calling, job_id: str) -> Job:
        return await jobs.cancel(call, job_id)

    @router.post("/v1/jobs/{job_id}/replay")
    async def replay_job(call: Calling, job_id: str) -> Job:
        return await jobs.replay(call, job_id)

    return router
