"""The child that builds a graph: `python -m plinth.embedded.index_builder JOB.json`, on a copy of the shard.

A shard that grew is optimized as it is. One that was built with other settings is read into a fresh shard with its
indexes first: that serves a changed graph, a changed quantization, and a tenant index that came after the points, whose
links an optimize alone does not make.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from plinth.embedded import shard_files
from plinth.embedded.schema import shard_config

PAGE = 1000
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the job named on the command line."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(5)
    job = json.loads(Path(sys.argv[1]).read_text())
    source, target = Path(job["source"]), Path(job["target"])
    if job["afresh"]:
        _build(source, target, job["config"], job["indexes"])
    else:
        source.rename(target)
        # The optimizers' settings are not the graph's: they may have changed and are given anew.
        _optimize(edge.EdgeShard.load(str(target), shard_config(job["config"])))
        shard_files.mark_built(target, job["config"], job["indexes"])


def _build(source: Path, target: Path, config: dict[str, Any], indexes: dict[str, Any]) -> None:
    old = edge.EdgeShard.load(str(source))
    new = shard_files.create(target, config, indexes)
    offset = None
    while True:
        points, offset = old.scroll(edge.ScrollRequest(offset=offset, limit=PAGE, with_payload=True, with_vector=True))
        if points:
            copies = [edge.Point(point.id, point.vector or {}, point.payload) for point in points]
            new.update(edge.UpdateOperation.upsert_points(copies))
        if offset is None:
            break
    _optimize(new)
    old.close()


def _optimize(shard: edge.EdgeShard) -> None:
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    main()
