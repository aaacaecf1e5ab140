"""Jobs as callers see them and as Postgres keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StrictStr

from plinth.gateway.model import QUERY_TEXT_MAX, Message

ITEMS_MAX = 10_000
# Texts of one request to the provider (S2-05), and of one batch of a job.
BATCH_MAX = 50
CONTENT_MAX_BYTES = 32 * 2**20
KEY_MAX = 255


class JobStatus(StrEnum):
    """Where a job is; the last three are where it ends."""

    pending = "pending"
    processing = "processing"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (JobStatus.completed, JobStatus.failed, JobStatus.cancelled)


class Kind(StrEnum):
    """What a job does."""

    mock = "mock"
    embed = "embed"


class EmbedItem(Message):
    """A text, the id of the point that it becomes, and its payload."""

    id: StrictStr
    text: Annotated[StrictStr, Field(min_length=1, max_length=QUERY_TEXT_MAX)]
    payload: dict[str, Any] = Field(default_factory=dict)


class Job(Message):
    """A job as its organisation sees it; ``progress`` is 0 to 100."""

    id: str
    status: JobStatus
    stage: str
    progress: int
    result: dict[str, Any] | None
    error: str | None
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class BatchItem:
    """An item as a batch keeps it; ``point_id`` is Qdrant's id of its point."""

    id: str
    point_id: str
    text: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class NewJob:
    """A job to store. Its id is made of the organisation and all that it is to do."""

    id: UUID
    org_id: str
    user_id: str
    kind: Kind
    collection: str
    qdrant_collection: str
    parameters: dict[str, Any]
    point_ids: list[str]
    batches: list[bytes]


@dataclass(frozen=True)
class StoredJob:
    """A row of `jobs`."""

    id: UUID
    org_id: str
    user_id: str
    kind: str
    collection: str
    qdrant_collection: str
    parameters: dict[str, Any]
    status: str
    stage: str
    items: int
    items_done: int
    items_superseded: int
    result: dict[str, Any] | None
    error: str | None
    attempts: int
    created_at: datetime
    updated_at: datetime

    def to_job(self) -> Job:
        """What its organisation sees."""
        status = JobStatus(self.status)
        # 100 is for a job that is completed.
        progress = 100 if status is JobStatus.completed else min(99, 100 * self.items_done // self.items)
        return Job(
            id=str(self.id),
            status=status,
            stage=self.stage,
            progress=progress,
            result=self.result,
            error=self.error,
            created_at=self.created_at.astimezone(UTC).isoformat(),
            updated_at=self.updated_at.astimezone(UTC).isoformat(),
        )


@dataclass(frozen=True)
class ClaimedJob(StoredJob):
    """A row with the trace of the request that asked for the job."""

    traceparent: str | None


COLUMNS = ", ".join(f"jobs.{name}" for name in StoredJob.__dataclass_fields__)
