"""Events of an environment, written by the command line for the exporter: the last deploy, and the last load run.

    {"version": 1, "deployed_at": 1795249337.0,
     "load": {"at": 1795249400.0, "verdict": "pass", "recall": 0.99,
              "operations": {"search": {"p95_ms": 4.2, "p99_ms": 6.6, "target_ms": 50.0, "rps": 22.5, "errors": 0}}}}

Dashboards mark both on every graph. There are no marks when the command ran on another machine than the exporter.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel, ConfigDict, ValidationError

from plinth.system.atomic_files import READABLE, write_whole
from plinth.system.strict_model import StrictModel
from plinth.system.timestamps import past

FILE = "marks.json"
VERDICTS = ("pass", "fail", "void")


class Operation(BaseModel):
    """One operation of a load run."""

    model_config = ConfigDict(frozen=True)

    p95_ms: float
    p99_ms: float
    target_ms: float
    rps: float
    errors: int


class LoadRun(StrictModel):
    """The last run of the load gate."""

    at: float
    verdict: Literal["pass", "fail", "void"]
    recall: float | None = None
    operations: dict[str, Operation]


class Marks(StrictModel):
    """The whole file."""

    version: Literal[1] = 1
    deployed_at: float | None = None
    load: LoadRun | None = None


def read(path: Path, now: float | None = None) -> Marks:
    """Read the events; empty where the file is missing, damaged or ahead of the clock: they only annotate graphs."""
    now = time.time() if now is None else now
    try:
        marks = Marks.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Marks()
    load = marks.load if marks.load and past(marks.load.at, now) is not None else None
    return marks.model_copy(update={"deployed_at": past(marks.deployed_at, now), "load": load})


def mark_deploy(path: Path) -> None:
    """Record that a deploy ended now."""
    _write(path, read(path).model_copy(update={"deployed_at": time.time()}))


def mark_load(path: Path, report: Mapping[str, Any]) -> None:
    """Record a load run by its report (`plinth load --json`)."""
    run = LoadRun(
        at=time.time(),
        verdict=report["verdict"],
        recall=report["operations"].get("search", {}).get("recall_at_10"),
        operations={name: Operation.model_validate(row) for name, row in report["operations"].items()},
    )
    _write(path, read(path).model_copy(update={"load": run}))


def families(marks: Marks) -> Iterator[Metric]:
    """Yield the metrics of the recorded events."""
    if marks.deployed_at is not None:
        yield GaugeMetricFamily(
            "plinth_last_deploy_timestamp_seconds", "When `up` last ended.", value=marks.deployed_at
        )
    if marks.load is None:
        return
    run = marks.load
    yield GaugeMetricFamily("plinth_load_last_timestamp_seconds", "When the load gate last ended.", value=run.at)
    verdict = GaugeMetricFamily("plinth_load_last_verdict", "1 for the last verdict.", labels=["verdict"])
    for word in VERDICTS:
        verdict.add_metric([word], run.verdict == word)
    yield verdict
    if run.recall is not None:
        yield GaugeMetricFamily("plinth_load_recall_ratio", "recall@10 of the last load run.", value=run.recall)
    for name, words, values in (
        ("p95_seconds", "p95 of the last load run.", {n: o.p95_ms / 1000 for n, o in run.operations.items()}),
        ("p99_seconds", "p99 of the last load run.", {n: o.p99_ms / 1000 for n, o in run.operations.items()}),
        ("target_seconds", "What it was judged against.", {n: o.target_ms / 1000 for n, o in run.operations.items()}),
        ("rate", "Answers a second.", {n: o.rps for n, o in run.operations.items()}),
        ("errors", "Errors of the last load run.", {n: float(o.errors) for n, o in run.operations.items()}),
    ):
        family = GaugeMetricFamily(f"plinth_load_{name}", words, labels=["operation"])
        for operation, value in values.items():
            family.add_metric([operation], value)
        yield family


def _write(path: Path, marks: Marks) -> None:
    # Only in the directory of an exporter: elsewhere no program would read it.
    if path.parent.is_dir():
        write_whole(path, marks.model_dump_json(indent=2, exclude_none=True), READABLE)
