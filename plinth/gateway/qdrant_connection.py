"""Requests to Qdrant's REST: its address, its key and its certificates.

qdrant-client is not used here: it builds and checks a model of every request and answer, which was two fifths of the
CPU of a search. REST is what both the real server and the embedded one speak.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from plinth.gateway.config import QdrantServer
from plinth.gateway.http_connections import Connections, HttpAnswer, connections_to
from plinth.gateway.qdrant_tokens import Access, QdrantTokens
from plinth.system.secret_file import read_secret


class QdrantConnection:
    """A server of Qdrant, connected when it is first asked."""

    def __init__(self, server: QdrantServer) -> None:
        self._server = server
        self._connections: Connections | None = None
        self._headers: dict[str, str] = {}
        self._tokens: QdrantTokens | None = None

    async def send(
        self,
        method: str,
        target: str,
        content: object = None,
        *,
        access: Access | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpAnswer:
        """The answer to a request; raises :class:`plinth.gateway.http_connections.ConnectionLostError`.

        ``content`` is sent as JSON. ``access`` is all that the request may do, where the server takes tokens; without
        it the server's key goes along. ``headers`` are in addition.
        """
        if self._connections is None:
            self._connections = self._connected()
        body = b"" if content is None else orjson.dumps(content)
        sent = {**self._headers, **(headers or {})}
        if self._tokens is not None and access is not None:
            sent |= self._tokens.headers(access)
        return await self._connections.request(method, target, sent, body)

    async def close(self) -> None:
        """End its connections."""
        if self._connections is not None:
            await self._connections.close()

    def _connected(self) -> Connections:
        server = self._server
        # A compressed answer waits 40 ms for an acknowledgement on a connection that is kept (docs/load.md).
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if server.api_key_file:
            self._headers["api-key"] = key = read_secret(server.api_key_file)
            self._tokens = QdrantTokens(key) if server.collection_tokens else None
        context = ssl.create_default_context(cafile=server.ca_file) if server.url.startswith("https://") else None
        # Qdrant ends a connection that idles for five seconds; those that are kept for less never meet that.
        return connections_to(server.url, context, idle_s=3.0)


def collection_target(collection: str, path: str = "", **query: Any) -> str:
    """The path below a collection, with the parameters that are not None."""
    given = {name: value for name, value in query.items() if value is not None}
    return f"/collections/{quote(collection, safe='')}{path}{f'?{urlencode(given)}' if given else ''}"
