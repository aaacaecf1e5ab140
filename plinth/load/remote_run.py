"""A run that is carried out remotely: the job, and its report as lines of a log.

Every container engine and cluster returns logs, also of a container that has ended. Lines are short, because engines
and log readers cut long ones, and a log that is read again from its beginning gives each line once.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from plinth.errors import UserError
from plinth.load.aggregation import Times
from plinth.load.locust_runner import Protocol
from plinth.load.percentiles import Latencies
from plinth.load.report import Report, Step
from plinth.load.server_metrics import ServerSide
from plinth.load.slo import Slo
from plinth.qdrant.spec import CollectionSpec
from plinth.system.strict_model import StrictModel

VARIABLE = "PLINTH_LOAD"
WORDS_A_LINE = 4000
_LINE = re.compile(r"plinth-load (\d+)/(\d+) ([A-Za-z0-9+/=]+)")


class Job(StrictModel):
    """A complete run of the load gate; its secrets are in files where it is carried out."""

    profile: str
    slo: Slo
    shipped: CollectionSpec
    url: str
    grpc: str | None
    protocol: Protocol
    keep: bool = False
    api_key_file: Path | None = None
    ca_file: Path | None = None

    def text(self) -> str:
        """Return the job as one environment variable: it has every setting, so that an image needs no project files."""
        return json.dumps(self.model_dump(mode="json", exclude_unset=True), separators=(",", ":"))


def job_of(profile: str, slo: Slo, shipped: CollectionSpec, **others: Any) -> Job:
    """Return the job of one profile, without the other profiles and the settings of `make compare`."""
    own = slo.model_copy(update={"profiles": {profile: slo.profile(profile)}, "comparison": None})
    return Job(profile=profile, slo=own, shipped=shipped, **others)


class _Created(BaseModel):
    """How long the creation of collections took."""

    values: list[float]
    counts: list[list[int]]
    blocks: tuple[int, ...]


class _Run(StrictModel):
    """A report without what its reader has: the profile and its targets."""

    version: Literal[1] = 1
    steps: tuple[Step, ...]
    server: ServerSide
    created: _Created | None
    engine: str
    url: str
    protocol: str
    data: str
    machine: str
    at: str


class _Refusal(StrictModel):
    """Why there is no report."""

    sentence: str
    exit_code: int


def report_lines(report: Report) -> Iterator[str]:
    """Yield the log lines that carry a report."""
    made = report.created.response if report.created else None
    created = _Created(values=made.values.tolist(), counts=made.counts.tolist(), blocks=made.blocks) if made else None
    others = {name: getattr(report, name) for name in ("engine", "url", "protocol", "data", "machine", "at")}
    run = _Run(steps=report.steps, server=report.server, created=created, **others)
    return _lines({"run": run.model_dump()})


def refusal_lines(error: UserError) -> Iterator[str]:
    """Yield the log lines that carry the reason for no report."""
    return _lines({"refusal": {"sentence": str(error), "exit_code": error.exit_code}})


class Collected:
    """The result of a remote run, collected line by line."""

    def __init__(self) -> None:
        self._parts: dict[int, str] = {}
        self._count = 0

    def add(self, line: str) -> bool:
        """Add a log line; return whether it belongs to the result."""
        found = _LINE.fullmatch(line.strip())
        if found is None:
            return False
        self._parts[int(found[1])], self._count = found[3], int(found[2])
        return True

    def report(self, profile: str, slo: Slo) -> Report | None:
        """Return the report, or None where it is incomplete. Raises the error of a run without a report."""
        if not self._count or set(self._parts) != set(range(1, self._count + 1)):
            return None
        packed = "".join(self._parts[number] for number in range(1, self._count + 1))
        try:
            document = json.loads(gzip.decompress(base64.b64decode(packed)))
            if "refusal" in document:
                refused = _Refusal.model_validate(document["refusal"])
                raise UserError(refused.sentence, exit_code=refused.exit_code)
            return _report(_Run.model_validate(document["run"]), profile, slo)
        except (ValidationError, ValueError, KeyError, TypeError, EOFError, OSError) as error:
            raise UserError(
                "The run's report is none of this version: Plinth's image is another than this installation. "
                "`plinth images build` makes it anew; push it where a registry has it.",
                exit_code=3,
            ) from error


def _report(run: _Run, profile: str, slo: Slo) -> Report:
    made = run.created
    found = made and Latencies(np.array(made.values), np.array(made.counts, dtype=np.int64), made.blocks)
    return Report(
        profile=profile,
        judged=slo.profile(profile),
        slo=slo,
        steps=run.steps,
        server=run.server,
        created=Times(found, found, {}, None) if found else None,
        **{name: getattr(run, name) for name in ("engine", "url", "protocol", "data", "machine", "at")},
    )


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    packed = base64.b64encode(gzip.compress(json.dumps(document).encode(), mtime=0)).decode()
    parts = [packed[start : start + WORDS_A_LINE] for start in range(0, len(packed), WORDS_A_LINE)]
    for number, part in enumerate(parts, start=1):
        yield f"plinth-load {number}/{len(parts)} {part}"
