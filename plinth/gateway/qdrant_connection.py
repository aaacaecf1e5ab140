"""A client of Qdrant, made at the first request: over gRPC for a real server, over REST for the embedded one."""

from __future__ import annotations

import asyncio
import math
import ssl
from typing import Any
from urllib.parse import urlsplit

import httpx
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException

from plinth.gateway.config import QdrantServer
from plinth.http_client import async_client_for, grpc_options
from plinth.secret_file import read_secret

# Connections that idle, and for how long: Qdrant closes one after five seconds, and that must not meet a request.
KEPT, KEPT_S = 64, 3.0
# What a real server calls itself at `/`; the embedded one has another name, and speaks no gRPC.
SERVER_TITLE = "qdrant - vector search engine"


class QdrantConnection:
    """The client, and which protocol it speaks."""

    def __init__(self, server: QdrantServer, timeout_s: float) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._client: AsyncQdrantClient | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> AsyncQdrantClient:
        """The client; raises what qdrant-client raises where the server does not answer."""
        async with self._connecting:
            if self._client is None:
                self._client = self._connected(speaks_grpc=await self._speaks_grpc())
            return self._client

    async def close(self) -> None:
        """End its connections."""
        if self._client is not None:
            await self._client.close()

    async def _speaks_grpc(self) -> bool:
        if self._server.grpc_port is None:
            return False
        try:
            context = self._authorities()
            async with async_client_for(self._server.url, verify=context, timeout=self._timeout_s) as client:
                answer = await client.get("")
                return bool(answer.json().get("title") == SERVER_TITLE)
        except httpx.HTTPError as error:
            raise ResponseHandlingException(error) from error
        except (ValueError, AttributeError) as error:
            raise ResponseHandlingException(httpx.DecodingError(str(error))) from error

    def _authorities(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self._server.ca_file) if self._server.ca_file else None

    def _connected(self, *, speaks_grpc: bool) -> AsyncQdrantClient:
        server = self._server
        options: dict[str, Any] = {
            "url": server.url,
            "api_key": read_secret(server.api_key_file) if server.api_key_file else None,
            "timeout": math.ceil(self._timeout_s),
            "verify": self._authorities() or True,
            "trust_env": False,
            # On loopback the client opens a connection for each request, unless it is told.
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=KEPT, keepalive_expiry=KEPT_S),
            # A compressed answer waits 40 ms for an acknowledgement on a connection that is kept (docs/load.md).
            "metadata": {"accept-encoding": "identity"},
            # One minor apart is allowed; which versions run is settled when the stack goes up.
            "check_compatibility": False,
        }
        if speaks_grpc:
            # gRPC reads its authorities from GRPC_DEFAULT_SSL_ROOTS_FILE_PATH alone.
            address = f"{urlsplit(server.url).hostname}:{server.grpc_port}"
            options |= {"grpc_port": server.grpc_port, "prefer_grpc": True, "grpc_options": dict(grpc_options(address))}
        return AsyncQdrantClient(**options)
