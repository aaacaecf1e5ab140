"""Fill a collection so that one graph is built over all points at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plinth.load.batch_insert import insert
from plinth.load.collection_setup import wait_indexed
from plinth.load.synthetic_vectors import Matrix
from plinth.qdrant.apply import converge
from plinth.qdrant.client import Qdrant, collection_path
from plinth.qdrant.spec import CollectionSpec

BATCH = 500
# An indexing threshold in KB above any load here.
NEVER = 10**9


def fill(client: Qdrant, spec: CollectionSpec, vectors: Matrix, payload: Callable[[int], dict[str, Any]]) -> None:
    """Create the collection, insert one point per row with ids from 0, and wait until it is indexed."""
    later = spec.optimizers_config.model_copy(update={"indexing_threshold": NEVER})
    converge(client, spec.model_copy(update={"optimizers_config": later}))
    path = f"{collection_path(spec.name)}/points"
    insert(client, spec.name, vectors, payload, BATCH)
    converge(client, spec)
    # After a write a server checks whether to index; some check only then.
    client.call("POST", f"{path}/delete?wait=true", {"points": [len(vectors)]})
    wait_indexed(client, spec)
