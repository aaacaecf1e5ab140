"""One run of the load gate: prepare, recall, Locust in a process of its own, verdict."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from hdrh.histogram import HdrHistogram

from plinth.errors import UserError
from plinth.load.dataset import Dataset, wordnet
from plinth.load.fixture import drop_scratch, gate_spec, measure_recall, prepare, unready
from plinth.load.report import Report
from plinth.load.slo import Profile, Slo
from plinth.load.verdict import GeneratorHealth, Measured, Operation, judge
from plinth.qdrant.client import Qdrant
from plinth.qdrant.spec import CollectionSpec

IN_FLIGHT_MAX = 200
# Locust's start, the last answers and the end of the run.
SLACK_S = 90


@dataclass(frozen=True)
class Server:
    """Where the load goes. The key travels by file."""

    url: str
    api_key: str | None


def run(
    server: Server,
    profile_name: str,
    slo: Slo,
    shipped: CollectionSpec,
    *,
    cache: Path,
    locustfile: Path,
    on_progress: Callable[[str], None],
) -> Report:
    """Measure and judge. ``shipped`` is the collection whose tuning is tried."""
    profile = slo.profile(profile_name)
    dataset = wordnet(profile.points, profile.queries, cache, on_progress)
    spec = gate_spec(shipped, dataset)
    with Qdrant(server.url, server.api_key) as client:
        engine = client.banner()
        prepare(client, spec, dataset, on_progress)
        not_ready = list(unready(client, spec))
        recall = measure_recall(client, spec, dataset)
        on_progress(
            f"Load: {profile.rate_per_s:.0f} requests/s for {profile.duration_s:.0f} s "
            f"after {profile.warmup_s:.0f} s of warm-up"
        )
        result = _locust(server, profile, spec, dataset, locustfile)
        drop_scratch(client, spec)
        not_ready += [
            f"after the run: {words}" for words in unready(client, spec) if "still being optimized" not in words
        ]
    measured = Measured(
        operations={name: _operation(found, result["elapsed_s"]) for name, found in result["operations"].items()},
        generator=GeneratorHealth(result["planned"], result["achieved"], result["lag_p95_ms"], result["cpu_share"]),
        recall=recall.overall,
        recall_by_large_tenant=recall.by_large_tenant,
        unready=tuple(not_ready),
    )
    return Report(
        profile=profile_name,
        judged=profile,
        slo=slo,
        measured=measured,
        verdict=judge(measured, slo, profile),
        engine=engine,
        url=server.url,
        data=f"{dataset.name}: {len(dataset.vectors)} x {dataset.vectors.shape[1]}, {len(dataset.shares())} tenants",
        machine=_machine(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _locust(
    server: Server, profile: Profile, spec: CollectionSpec, dataset: Dataset, locustfile: Path
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="plinth-load-") as directory:
        job, data, result = (Path(directory) / name for name in ("job.json", "data.npz", "result.json"))
        np.savez(
            data,
            ids=np.arange(len(dataset.vectors)),
            queries=dataset.queries,
            query_tenants=np.array(dataset.query_tenants),
            query_parts=np.array(dataset.query_parts),
        )
        job.touch(mode=0o600)
        job.write_text(
            json.dumps(
                {
                    "url": server.url,
                    "api_key": server.api_key,
                    "collection": spec.name,
                    "params": spec.search.params(),
                    "data": str(data),
                    "result": str(result),
                    "rate_per_s": profile.rate_per_s,
                    "warmup_s": profile.warmup_s,
                    "duration_s": profile.duration_s,
                    "mix": profile.mix,
                    "in_flight_max": IN_FLIGHT_MAX,
                }
            )
        )
        seconds = profile.warmup_s + profile.duration_s + SLACK_S
        words = _run_locust(job, locustfile, seconds)
        if not result.exists():
            raise UserError(f"Locust ended without a result: {words}; run it again.", exit_code=3)
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def _run_locust(job: Path, locustfile: Path, seconds: float) -> str:
    """Run Locust to its end; returns its last words. Past its time it is killed."""
    command = [sys.executable, "-m", "locust", "-f", str(locustfile), "--headless", "-u", "1", "-r", "1"]
    environment = {**os.environ, "PLINTH_LOAD_JOB": str(job)}
    try:
        done = subprocess.run(
            [*command, "--stop-timeout", "35", "--only-summary", "--loglevel", "WARNING"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {seconds:.0f} s"
    return " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:]) or f"exit {done.returncode}"


def _operation(found: dict[str, Any], elapsed_s: float) -> Operation:
    response, service = (HdrHistogram.decode(found[key]) for key in ("response", "service"))
    count = response.get_total_count()

    def milliseconds(histogram: HdrHistogram, percentile: float) -> float:
        return float(histogram.get_value_at_percentile(percentile)) / 1000 if count else 0.0

    return Operation(
        count=count,
        errors=found["errors"],
        rps=count / elapsed_s,
        p50_ms=milliseconds(response, 50),
        p95_ms=milliseconds(response, 95),
        p99_ms=milliseconds(response, 99),
        service_p95_ms=milliseconds(service, 95),
        first_error=found["first_error"],
    )


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {system}, generator on the same machine"
