"""Measure a store: its clients run in the comparison's own environment, one process each."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from plinth.compare.report import BY_CHANCE, SEARCHES, Result, Searched, times
from plinth.compare.servers import Server
from plinth.errors import UserError
from plinth.system.managed_process import fixed_environment
from plinth.system.memory import Memory

ROOT = Path(__file__).parent.parent.parent
WORKER = ("-m", "plinth.compare.worker")
LADDER = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
JOB_DEADLINE_S = 1800
READY_DEADLINE_S = 120


@dataclass(frozen=True)
class Run:
    """The parameters of the comparison. ``environment`` is the virtual environment of the other stores' packages."""

    place: Path
    environment: Path
    data: Path
    dimensions: int
    clients: int
    seconds: float
    rounds: int
    target: float
    confidence: float
    say: Callable[[str], None]

    @property
    def python(self) -> str:
        """Return the clients' interpreter: one for all stores; Plinth's own where there is no such environment."""
        own = self.environment / "bin" / "python"
        return str(own) if own.exists() else sys.executable

    def work(self, server: Server, do: str, **more: Any) -> dict[str, Any]:
        """Run one client's job and return its result."""
        return self.finish(self.begin(server, do, **more))

    def begin(self, server: Server, do: str, number: int = 0, **more: Any) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a client."""
        job, out = (self.place / f"{what}-{number}.json" for what in ("job", "out"))
        out.unlink(missing_ok=True)
        job.touch(mode=0o600)
        job.write_text(json.dumps({**server.job, "do": do, "data": str(self.data), "out": str(out), **more}))
        with (self.place / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [self.python, *WORKER, str(job)],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=fixed_environment({"PYTHONPATH": str(ROOT)}, self.place),
            )
        return process, out

    def finish(self, started: tuple[subprocess.Popen[bytes], Path]) -> dict[str, Any]:
        """Wait for a client, and return its result."""
        process, out = started
        try:
            status = process.wait(JOB_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise UserError("a client did not end in time", exit_code=1) from None
        if status or not out.exists():
            words = (self.place / "worker.log").read_text(errors="replace").strip().splitlines()[-1:]
            raise UserError(f"a client failed: {' '.join(words) or status}", exit_code=1)
        found: dict[str, Any] = json.loads(out.read_text())
        return found


@dataclass
class Measured:
    """A loaded and running store, and its measurements so far.

    ``ef`` is by the kind of search, and so are each round's answers: the ms of every client.
    """

    name: str
    version: str
    server: Server
    insert_s: float
    build_s: float
    ef: dict[str, int]
    recall: dict[str, float]
    alone: dict[str, list[list[list[float]]]] = field(default_factory=lambda: defaultdict(list))
    together: dict[str, list[list[list[float]]]] = field(default_factory=lambda: defaultdict(list))
    held: Memory = field(default_factory=lambda: Memory(0, 0))
    busy: list[float] = field(default_factory=list)

    def result(self, run: Run) -> Result:
        """Merge the rounds."""
        searched = {
            kind: Searched(
                ef=self.ef[kind],
                recall_at_10=self.recall[kind],
                met=self.recall[kind] >= run.target - BY_CHANCE,
                alone=times(self.alone[kind], run.seconds, run.confidence),
                together=times(self.together[kind], run.seconds, run.confidence),
            )
            for kind in self.ef
        }
        busy = sum(self.busy) / max(1, len(self.busy))
        return Result(
            self.name, self.version, self.insert_s, self.build_s, searched, self.held.anonymous, self.held.files, busy
        )


def load(run: Run, name: str, version: str, server: Server) -> Measured:
    """Load a store, restart it, and choose the ef that reaches the target.

    The restart frees the memory that only the load needed.
    """
    server.start()
    took = run.work(server, "load")
    server.stop()
    server.start()
    found = Measured(name, version or server.banner(), server, took["insert_s"], took["build_s"], {}, {})
    for kind in SEARCHES:
        found.ef[kind] = _fit(run, server, kind)
        held_out = run.work(server, "recall", filtered=_filtered(kind), ef=found.ef[kind], held_out=True)
        found.recall[kind] = held_out["recall_at_10"]
    run.say(f"{name}: indexed in {found.build_s:.0f} s; ef {found.ef}, recall {found.recall}")
    return found


def search(run: Run, store: Measured) -> None:
    """Run one round: each kind of search by one client, then by all."""
    store.busy.append(others_busy())
    for kind in SEARCHES:
        _take_ef(run, store.server, store.ef[kind])
        alone, _ = _hammer(run, store.server, 1, kind, store.ef[kind])
        together, held = _hammer(run, store.server, run.clients, kind, store.ef[kind])
        store.alone[kind].append(alone)
        store.together[kind].append(together)
        store.held = max(store.held, held, key=lambda memory: memory.total)


def others_busy(seconds: float = 2.0) -> float:
    """Return the share of all cores that is in use while this run only waits."""
    return psutil.cpu_percent(seconds) / 100


def _filtered(kind: str) -> bool:
    return kind != SEARCHES[0]


def _take_ef(run: Run, server: Server, ef: int) -> None:
    if server.reloads_for_ef:
        run.work(server, "prepare", ef=ef)
        server.stop()
        server.start()


def _fit(run: Run, server: Server, kind: str) -> int:
    """Return the smallest ef that reaches the target with the first half of the queries, or else the largest."""
    for ef in LADDER:
        _take_ef(run, server, ef)
        found = run.work(server, "recall", filtered=_filtered(kind), ef=ef, held_out=False)
        if found["recall_at_10"] >= run.target:
            return ef
    return LADDER[-1]


def _hammer(run: Run, server: Server, clients: int, kind: str, ef: int) -> tuple[list[list[float]], Memory]:
    """Run the clients, and return each one's ms and the memory.

    All start at one moment: each reports that it is ready, and waits for the start signal. The memory is read during
    the search: the shared memory of a Postgres process is visible only while it runs.
    """
    go = run.place / "go"
    go.unlink(missing_ok=True)
    ready = [run.place / f"ready-{number}" for number in range(clients)]
    for path in ready:
        path.unlink(missing_ok=True)
    common = {"filtered": _filtered(kind), "ef": ef, "seconds": run.seconds, "go": str(go)}
    started = [
        run.begin(server, "search", number, client=number, ready=str(ready[number]), **common)
        for number in range(clients)
    ]
    deadline = time.monotonic() + READY_DEADLINE_S
    while not all(path.exists() for path in ready) and time.monotonic() < deadline:
        if any(process.poll() for process, _ in started):
            break
        time.sleep(0.05)
    go.touch()
    time.sleep(run.seconds * 0.8)
    held = server.memory()
    return [run.finish(one)["ms"] for one in started], held
