"""Run Locust: write its job, start and stop its workers, read their results back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import plinth
from plinth.errors import UserError
from plinth.load.aggregation import Result
from plinth.load.dataset import TOP, Dataset
from plinth.load.slo import Through
from plinth.load.workload import SCRATCH
from plinth.system.managed_process import fixed_environment
from plinth.system.ports import free_port

Protocol = Literal["rest", "grpc"]
IN_FLIGHT_MAX = 200
# Allowance for Locust's start, the last answers and the end of the run.
SLACK_S = 120
# How long to wait for workers on other machines, and Locust's own port for them.
WORKERS_WAIT_S = 300
MASTER_PORT = 5557
# The number of time blocks for the interval and the plot of a percentile.
BLOCKS = 60
BLOCK_MIN_S = 1.0


@dataclass(frozen=True)
class Schedule:
    """The load of one round, in requests per second and seconds; ``number`` selects one of the same kind."""

    rate_per_s: float
    warmup_s: float
    duration_s: float
    mix: Mapping[str, float]
    number: int = 0
    processes: int = 1

    @property
    def block_s(self) -> float:
        """Return the seconds of a block."""
        return max(BLOCK_MIN_S, self.duration_s / BLOCKS)


@dataclass(frozen=True)
class Aim:
    """The target of the load: ``address`` is a URL for REST, `host:port` for gRPC. The key is passed in a file.

    Through the gateway the key is a token, and ``collection`` is its name within the organisation, which is ``scratch``
    too.
    """

    protocol: Protocol
    address: str
    api_key: str | None
    collection: str
    params: Mapping[str, Any]
    tls: bool = False
    ca_cert: str | None = None
    through: Through = "qdrant"
    scratch: str = SCRATCH


def send(
    aim: Aim, schedule: Schedule, dataset: Dataset, locustfile: Path, handed_out: Path | None = None
) -> list[Result]:
    """Send a schedule, and return the results of each worker. Raises :class:`UserError` when Locust ends without them.

    ``handed_out`` is a directory where workers that are started on other machines find the job; then none is started
    here.
    """
    with _place(handed_out) as place:
        job, result = place / "job.json", place / "result.json"
        np.savez(place / "data.npz", allow_pickle=False, **_queries(dataset))
        job.touch(mode=0o600)
        job.write_text(json.dumps(_job(aim, schedule, dataset)))
        words = _run(job, schedule, locustfile, _elsewhere(schedule) if handed_out else _here(schedule))
        if not result.exists():
            raise UserError(f"Locust ended without a result: {words}; run it again.", exit_code=3)
        found: list[Result] = json.loads(result.read_text())
        return found


@contextmanager
def _place(handed_out: Path | None) -> Iterator[Path]:
    """Yield a directory for a job, which holds the server's key, and remove it afterwards."""
    if handed_out is None:
        with tempfile.TemporaryDirectory(prefix="plinth-load-") as directory:
            yield Path(directory)
        return
    try:
        yield handed_out
    finally:
        for name in ("job.json", "data.npz", "result.json", "result.partial"):
            (handed_out / name).unlink(missing_ok=True)


def _queries(dataset: Dataset) -> dict[str, Any]:
    truth = np.full((len(dataset.queries), TOP), -1, dtype=np.int64)
    for row, nearest in enumerate(dataset.truth):
        truth[row, : len(nearest)] = sorted(nearest)
    stored = set(zip(dataset.tenants, dataset.parts, strict=True))
    asked = zip(dataset.query_tenants, dataset.query_parts, strict=True)
    return {
        "queries": dataset.queries,
        "tenants": np.array(dataset.query_tenants),
        "parts": np.array(dataset.query_parts),
        "words": np.array(dataset.query_words),
        "truth": truth,
        "matched": np.array([both in stored for both in asked]),
    }


def _job(aim: Aim, schedule: Schedule, dataset: Dataset) -> dict[str, Any]:
    return {
        "protocol": aim.protocol,
        "through": aim.through,
        "scratch": aim.scratch,
        "url": aim.address,
        "api_key": aim.api_key,
        "tls": aim.tls,
        "ca_cert": aim.ca_cert,
        "collection": aim.collection,
        "params": dict(aim.params),
        "points": len(dataset.vectors),
        "rate_per_s": schedule.rate_per_s,
        "warmup_s": schedule.warmup_s,
        "duration_s": schedule.duration_s,
        "block_s": schedule.block_s,
        "mix": dict(schedule.mix),
        "round": schedule.number,
        "processes": schedule.processes,
        "in_flight_max": IN_FLIGHT_MAX,
    }


def _here(schedule: Schedule) -> list[str]:
    """Return Locust's options for workers of this machine; by default its master listens on all interfaces."""
    if schedule.processes == 1:
        return []
    host, port = "127.0.0.1", str(free_port())
    listens = ["--master-bind-host", host, "--master-bind-port", port]
    return ["--processes", str(schedule.processes), *listens, "--master-host", host, "--master-port", port]


def _elsewhere(schedule: Schedule) -> list[str]:
    """Return Locust's options for a master that waits for workers of other machines."""
    patience = ["--expect-workers-max-wait", str(WORKERS_WAIT_S)]
    port = ["--master-bind-port", str(MASTER_PORT)]
    return ["--master", *port, "--expect-workers", str(schedule.processes), *patience]


def _packages() -> dict[str, str]:
    """Return where Plinth's image has its packages, next to this one; no interpreter searches there by itself."""
    beside = Path(plinth.__file__).parent.parent
    return {"PYTHONPATH": str(beside)} if (beside / "locust").is_dir() else {}


def _run(job: Path, schedule: Schedule, locustfile: Path, workers: list[str]) -> str:
    """Run Locust to its end and return its last output. After the deadline it and its workers are killed."""
    users = str(schedule.processes)
    command = [sys.executable, "-m", "locust", "-f", str(locustfile.resolve()), "--headless", "-u", users, "-r", users]
    # Locust reads options from the environment and the working directory: those of the caller are not meant for it.
    process = subprocess.Popen(
        [*command, *workers, "--stop-timeout", "40", "--only-summary", "--loglevel", "WARNING"],
        env=fixed_environment({"PLINTH_LOAD_JOB": str(job), **_packages()}, job.parent),
        cwd=job.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    seconds = schedule.warmup_s + schedule.duration_s + SLACK_S + (WORKERS_WAIT_S if "--master" in workers else 0)
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"it did not end within {seconds:.0f} s"
    finally:
        # After Ctrl-C too: it is in its own process group, and would continue to load the server.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return " / ".join(said.strip().splitlines()[-3:]) or f"exit {process.returncode}"
