"""One run of the load gate: prepare, recall, Locust in a process of its own, verdict."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from hdrh.histogram import HdrHistogram

from plinth.errors import UserError
from plinth.load.dataset import Dataset, wordnet
from plinth.load.fixture import Recall, drop_scratch, gate_spec, measure_recall, prepare, unready
from plinth.load.report import Report
from plinth.load.slo import Profile, Slo
from plinth.load.verdict import GeneratorHealth, Measured, Operation, Verdict, judge
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

        def send(number: int) -> dict[str, Any]:
            found = _locust(server, profile, spec, dataset, locustfile, number)
            drop_scratch(client, spec)
            # What the run wrote may still be indexed; what was there before must be.
            left = (words for words in unready(client, spec) if "still being optimized" not in words)
            not_ready.extend(f"after the run: {words}" for words in left)
            return found

        measured, verdicts = judged_rounds(
            profile.rounds,
            send,
            lambda found: _measured(found, recall, not_ready),
            lambda measured: judge(measured, slo, profile),
            on_progress,
        )
    return Report(
        profile=profile_name,
        judged=profile,
        slo=slo,
        measured=measured,
        verdict=verdicts[-1],
        engine=engine,
        url=server.url,
        data=f"{dataset.name}: {len(dataset.vectors)} x {dataset.vectors.shape[1]}, {len(dataset.shares())} tenants",
        machine=_machine(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        earlier=tuple(verdicts[:-1]),
    )


def judged_rounds(
    limit: int,
    send: Callable[[int], dict[str, Any]],
    measure: Callable[[Sequence[dict[str, Any]]], Measured],
    decide: Callable[[Measured], Verdict],
    on_progress: Callable[[str], None],
) -> tuple[Measured, list[Verdict]]:
    """Rounds until one more would tell nothing: what was measured over all that count, and the verdict after each.

    A round that missed a percentile counts on; one that says nothing of the server is thrown away.
    """
    kept: list[dict[str, Any]] = []
    verdicts: list[Verdict] = []
    while True:
        kept.append(send(len(verdicts)))
        measured = measure(kept)
        verdicts.append(decide(measured))
        if not verdicts[-1].again or len(verdicts) == limit:
            return measured, verdicts
        on_progress(f"Another round: {verdicts[-1].reasons[0]}")
        if verdicts[-1].word == "void":
            kept.pop()


def _measured(rounds: Sequence[dict[str, Any]], recall: Recall, not_ready: Sequence[str]) -> Measured:
    return Measured(
        operations=pooled(rounds),
        generator=GeneratorHealth(
            planned=sum(found["planned"] for found in rounds),
            achieved=sum(found["achieved"] for found in rounds),
            lag_p95_ms=max(found["lag_p95_ms"] for found in rounds),
            cpu_share=max(found["cpu_share"] for found in rounds),
        ),
        recall=recall.overall,
        recall_by_large_tenant=recall.by_large_tenant,
        unready=tuple(not_ready),
    )


def _locust(
    server: Server, profile: Profile, spec: CollectionSpec, dataset: Dataset, locustfile: Path, number: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="plinth-load-") as directory:
        job, data, result = (Path(directory) / name for name in ("job.json", "data.npz", "result.json"))
        np.savez(
            data,
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
                    "points": len(dataset.vectors),
                    "round": number,
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
    command = [sys.executable, "-m", "locust", "-f", str(locustfile.resolve()), "--headless", "-u", "1", "-r", "1"]
    # Locust takes options from the environment and the working directory; those of another test are not meant here.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    environment = {**inherited, "PLINTH_LOAD_JOB": str(job)}
    try:
        done = subprocess.run(
            [*command, "--stop-timeout", "40", "--only-summary", "--loglevel", "WARNING"],
            env=environment,
            cwd=job.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {seconds:.0f} s"
    return " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:]) or f"exit {done.returncode}"


def pooled(rounds: Sequence[dict[str, Any]]) -> dict[str, Operation]:
    """The operations over the answers of every round: histograms add up without loss."""
    names = dict.fromkeys(name for found in rounds for name in found["operations"])
    elapsed_s = sum(found["elapsed_s"] for found in rounds)
    return {
        name: _operation([found["operations"][name] for found in rounds if name in found["operations"]], elapsed_s)
        for name in names
    }


def _operation(parts: Sequence[dict[str, Any]], elapsed_s: float) -> Operation:
    response, service = (_added(part[key] for part in parts) for key in ("response", "service"))
    count = response.get_total_count()

    def milliseconds(histogram: HdrHistogram, percentile: float) -> float:
        return float(histogram.get_value_at_percentile(percentile)) / 1000 if count else 0.0

    return Operation(
        count=count,
        errors=sum(part["errors"] for part in parts),
        rps=count / elapsed_s,
        p50_ms=milliseconds(response, 50),
        p95_ms=milliseconds(response, 95),
        p99_ms=milliseconds(response, 99),
        service_p95_ms=milliseconds(service, 95),
        first_error=next((part["first_error"] for part in parts if part["first_error"]), None),
    )


def _added(encoded: Iterable[str]) -> HdrHistogram:
    first, *others = (HdrHistogram.decode(part) for part in encoded)
    for other in others:
        first.add(other)
    return first


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {system}, generator on the same machine"
