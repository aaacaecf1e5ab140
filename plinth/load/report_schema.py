"""The report as JSON: what `plinth load --json` prints, `--json-out` writes and `--baseline` reads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plinth.system.strict_model import StrictModel


class OperationRecord(StrictModel):
    """One operation; latencies are milliseconds from the planned moment, service from the moment of sending."""

    count: int
    errors: int
    first_error: str | None
    rps: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p95_low_ms: float
    p95_high_ms: float | None = Field(description="null: too few answers to bound it")
    p99_ms: float
    p99_low_ms: float
    p99_high_ms: float | None = Field(description="null: too few answers to bound it")
    service_p95_ms: float
    target_ms: float
    recall_at_10: float | None = None


class RecallRecord(StrictModel):
    """recall@10 against exact search, 0 to 1."""

    overall: float
    large_tenants: dict[str, float]
    bands: dict[str, float]


class GeneratorRecord(StrictModel):
    """The load generator: how late, how near to its ceiling, and Little's law (in flight = rate x time)."""

    planned: int
    achieved: int
    lag_p95_ms: float
    rate_per_s: float
    ceiling_per_s: float
    overhead_ms: float
    processes: int
    in_flight: float
    in_flight_expected: float


class RoundRecord(StrictModel):
    """The verdict after a round."""

    verdict: Literal["pass", "fail", "void"]
    reasons: list[str]


class StepRecord(StrictModel):
    """One rate of a climb."""

    rate_per_s: float
    verdict: Literal["pass", "fail", "void"]
    p95_ms: dict[str, float]


class SampleRecord(StrictModel):
    """The server at a moment: cores used and resident MiB."""

    at_s: float
    cpu_cores: float
    rss_mib: float


class ServerRecord(StrictModel):
    """The server's own view; its p95 lies between two edges of its histogram."""

    searches: int
    search_p95_ms: tuple[float, float | None] | None
    samples: list[SampleRecord]
    before: dict[str, float]
    after: dict[str, float]


class ReportRecord(StrictModel):
    """A judged run."""

    version: Literal[1] = 1
    verdict: Literal["pass", "fail", "void"]
    reasons: list[str]
    profile: str
    protocol: Literal["rest", "grpc"]
    percentile: int
    confidence: float
    at: str
    url: str
    engine: str
    machine: str
    data: str
    operations: dict[str, OperationRecord]
    recall: dict[str, RecallRecord]
    generator: GeneratorRecord
    server: ServerRecord
    steps: list[StepRecord]
    highest_rate_per_s: float | None = Field(description="The highest rate of a climb that passed.")
    earlier_rounds: list[RoundRecord]
