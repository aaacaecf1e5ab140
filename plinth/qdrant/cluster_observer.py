"""Fetching of the nodes' views of a cluster: the I/O around :mod:`plinth.qdrant.cluster`."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from plinth.qdrant.client import Qdrant, QdrantError, collection_path
from plinth.qdrant.cluster import View, view

CONNECT_TIMEOUT_S = 2.0


def observe(client: Qdrant) -> View:
    """Return the cluster as one node sees it; raises :class:`QdrantError`."""
    cluster = client.call("GET", "/cluster")
    if cluster.get("status") != "enabled":
        raise QdrantError(f"Qdrant at {client.url} runs alone and not as a node of a cluster; see its configuration.")
    found = {name: _shards(client, name) for name in client.collections()}
    return view(cluster, {name: shards for name, shards in found.items() if shards is not None})


def _shards(client: Qdrant, name: str) -> Any:
    """Return the shards of a collection; None for one that has been dropped in between."""
    try:
        return client.call("GET", f"{collection_path(name)}/cluster")
    except QdrantError as error:
        if error.status == 404:
            return None
        raise


def listens(url: str) -> bool:
    """Return whether a node's address accepts connections; a node that is loading its collections does not yet."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def observe_others(
    urls: Sequence[str], api_key: str | None, timeout_s: float, ca_cert: str | None = None
) -> list[View]:
    """Return the cluster as each of these nodes sees it; nodes that do not answer are skipped."""
    seen = []
    for url in urls:
        try:
            with Qdrant(url, api_key, timeout_s, ca_cert) as client:
                seen.append(observe(client))
        except QdrantError:
            continue
    return seen
