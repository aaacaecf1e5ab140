"""One process of jobs. It is forked from one that has imported all this, which takes seconds of a processor."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dramatiq.worker

from plinth.gateway.audit import AuditLog
from plinth.gateway.config import QdrantServer
from plinth.gateway.jobs.config import JobsConfig
from plinth.gateway.jobs.dispatcher import run_dispatcher
from plinth.gateway.jobs.worker import run_worker
from plinth.gateway.metrics import GatewayMetrics
from plinth.gateway.operations import Operations
from plinth.gateway.qdrant_connection import QdrantConnection
from plinth.gateway.shared_collections import shared_collections
from plinth.gateway.vector_store import VectorStore
from plinth.qdrant.spec import CollectionSpec
from tests.gateway.conftest import COLLECTIONS


@asynccontextmanager
async def operations(qdrant_url: str, directory: Path, audit: str) -> AsyncIterator[Operations]:
    """The core over a server, with the collections of the tests."""
    store = VectorStore(QdrantConnection(QdrantServer(url=qdrant_url, api_key_file=directory / "key")))
    specs = [CollectionSpec.model_validate(spec) for spec in COLLECTIONS]
    yield Operations(store, AuditLog(directory / audit), shared=shared_collections(specs))
    await store.close()


async def run(role: str, file: Path) -> None:
    """Run a `dispatcher` or a `worker` by the configuration in the file, until SIGTERM."""
    content = json.loads(file.read_text())
    config, stop = JobsConfig.model_validate(content["jobs"]), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if role == "dispatcher":
        await run_dispatcher(config, GatewayMetrics(), stop)
    else:
        async with operations(content["qdrant_url"], file.parent, f"{role}-audit.jsonl") as core:
            await run_worker(config, core, GatewayMetrics(), stop)


def main(name: str, file: Path) -> None:
    """A process, which a test may kill; its log has its name."""
    with file.with_name(f"{name}.log").open("ab") as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # A Redis that was restarted is asked again sooner than the three seconds that dramatiq waits.
    dramatiq.worker.CONSUMER_RESTART_DELAY_SECS = 0.2
    asyncio.run(run(name.partition("-")[0], file))
