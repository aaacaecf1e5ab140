"""A proxy that refuses everything and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

VARIABLES = (
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "GRPC_PROXY",
    "grpc_proxy",
)
EXEMPTIONS = ("NO_PROXY", "no_proxy", "no_grpc_proxy")


@dataclass
class Proxy:
    """A listening proxy; ``requests`` are the heads of all requests, in order."""

    url: str
    requests: list[str] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Proxy]:
    """A proxy for as long as the block lasts."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            # Once: what speaks another protocol ends no line.
            proxy.requests.append(self.request.recv(65536).decode(errors="replace"))
            self.request.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown()
