"""The settings of the dispatcher and of workers."""

from __future__ import annotations

from pydantic import Field, SecretStr

from plinth.gateway.providers.config import MiniLMProvider, Provider
from plinth.system.strict_model import StrictModel


class JobsConfig(StrictModel):
    """What the processes of jobs need; times are in seconds where nothing else is said.

    ``postgres_dsn`` and ``redis_url`` hold passwords and are in no log.
    """

    postgres_dsn: SecretStr
    redis_url: SecretStr
    provider: Provider = MiniLMProvider()
    worker_concurrency: int = Field(2, ge=1, le=64, description="Jobs that one worker does at once.")
    dispatch_interval_ms: int = Field(1000, ge=10, description="How often the outbox is looked through at least.")
    lease_s: float = Field(30, gt=0, description="After this a job whose worker is gone is done by another.")
    resend_after_s: float = Field(5, gt=0, description="After this a message that Redis does not have is sent again.")
    attempts_max: int = Field(12, ge=1, description="Failures of a job without a batch done, after which it is dead.")
    backoff_s: float = Field(1, gt=0, description="The wait after the first failure, twice as long after each other.")
    backoff_max_s: float = Field(300, gt=0)
    embed_s: float = Field(120, gt=0, description="The time of one batch at the provider.")
    write_s: float = Field(60, gt=0, description="The time of one batch at Qdrant.")
    retention_days: int = Field(7, ge=1, description="How long a job that ended is kept, dead ones too.")
