"""`python -m tests.gateway.job_process dispatcher|worker FILE`: one process of jobs, which a test may kill."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from plinth.gateway.audit import AuditLog
from plinth.gateway.config import QdrantServer
from plinth.gateway.jobs.config import JobsConfig
from plinth.gateway.jobs.dispatcher import run_dispatcher
from plinth.gateway.jobs.worker import run_worker
from plinth.gateway.operations import Operations
from plinth.gateway.qdrant_connection import QdrantConnection
from plinth.gateway.shared_collections import shared_collections
from plinth.gateway.vector_store import VectorStore
from plinth.qdrant.spec import CollectionSpec
from tests.conftest import KEY
from tests.gateway.conftest import COLLECTIONS


@asynccontextmanager
async def operations(qdrant_url: str, directory: Path, audit: str) -> AsyncIterator[Operations]:
    """The core over a server, with the collections of the tests."""
    (directory / "key").write_text(KEY)
    store = VectorStore(QdrantConnection(QdrantServer(url=qdrant_url, api_key_file=directory / "key"), 30))
    specs = [CollectionSpec.model_validate(spec) for spec in COLLECTIONS]
    yield Operations(store, AuditLog(directory / audit), shared=shared_collections(specs))
    await store.close()


async def run(role: str, file: Path) -> None:
    content = json.loads(file.read_text())
    config, stop = JobsConfig.model_validate(content["jobs"]), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if role == "dispatcher":
        await run_dispatcher(config, stop)
    else:
        async with operations(content["qdrant_url"], file.parent, f"{role}-audit.jsonl") as core:
            await run_worker(config, core, stop)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(run(sys.argv[1], Path(sys.argv[2])))
