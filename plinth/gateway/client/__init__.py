"""A client of the gateway over REST, for applications: :class:`Client`, and :class:`AsyncClient` for asyncio.

    with Client("http://127.0.0.1:8000", token) as client:
        client.create_collection("documents", dimension=384, distance="Cosine")
        client.upsert("documents", "doc-1", vector, {"source": "web"})
        hits = client.search("documents", vector, top_k=5, filter={"match": {"source": "web"}})

Both have one method for each operation (:mod:`plinth.gateway.client.calls` describes them), and raise
:class:`ApiError` for what was not done.
"""

from plinth.gateway.client.asynchronous import AsyncClient
from plinth.gateway.client.errors import ApiError, JobFailedError
from plinth.gateway.client.retries import RetryPolicy
from plinth.gateway.client.synchronous import Client
from plinth.gateway.errors import ErrorKind, FieldViolation
from plinth.gateway.jobs.model import EmbedItem, Job, JobStatus
from plinth.gateway.model import Collection, Hit, Hnsw, Page, Point, Search, StoredPoint

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "Collection",
    "EmbedItem",
    "ErrorKind",
    "FieldViolation",
    "Hit",
    "Hnsw",
    "Job",
    "JobFailedError",
    "JobStatus",
    "Page",
    "Point",
    "RetryPolicy",
    "Search",
    "StoredPoint",
]
