"""Small HTTP servers with a thread for each connection, and a limit on unauthenticated connections and their duration.

A new connection beyond the limit closes the oldest of them, so that quick clients are served however many are slow.
:meth:`Bounded.trust` stops counting a connection once it has sent a password.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import ThreadingMixIn
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from plinth.printable import visible

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

STRANGERS_MAX = 32
# For each read of a request, and for the whole of each write of an answer.
SILENT_S = 15
log = logging.getLogger("plinth.http")


class Bounded(ThreadingMixIn):
    """A mixin that limits a server of http.server or wsgiref."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._strangers: dict[socket.socket, None] = {}
        self._counting = Lock()
        super().__init__(*arguments, **named)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a new thread; beyond the limit the oldest unauthenticated connection is closed."""
        with self._counting:
            self._strangers[request] = None
            if len(self._strangers) > STRANGERS_MAX:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def trust(self, request: socket.socket) -> None:
        """Stop counting a connection as unauthenticated."""
        with self._counting:
            self._strangers.pop(request, None)

    def shutdown_request(self, request: Any) -> None:
        """Stop counting a connection that has ended, and close it."""
        self.trust(request)
        super().shutdown_request(request)  # type: ignore[misc]

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Log an error on one line: mostly a client that went away."""
        log.warning("%s: %r", client_address[0], sys.exc_info()[1])


class BoundedHTTPServer(Bounded, ThreadingHTTPServer):
    """A bounded http.server; its handler is a :class:`Handler`."""


class Handler(BaseHTTPRequestHandler):
    """A request handler with a time limit for reads and writes."""

    timeout = SILENT_S
    server_version, sys_version = "plinth", ""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log one line for each request, escaped, without its headers."""
        log.info("%s %s", self.client_address[0], visible(format % arguments))


class _MetricsServer(Bounded, WSGIServer):
    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), _MetricsHandler)
        self.set_app(_own_hosts_alone(make_wsgi_app(registry)))


def is_own_host(header: str) -> bool:
    """Return whether a Host header is an address or a name of a private network.

    A page in a browser whose own name resolves to this machine sends that name here.
    """
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    with suppress(ValueError):
        return bool(ip_address(name))
    return "." not in name or name.endswith((".svc", ".svc.cluster.local"))


def _own_hosts_alone(app: WSGIApplication) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if is_own_host(environ.get("HTTP_HOST", "")):
            return app(environ, start_response)
        start_response("421 Misdirected Request", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"Ask by an address or a name of this network.\n"]

    return answer


class _MetricsHandler(WSGIRequestHandler):
    timeout = SILENT_S

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: a scrape is no event."""


def serve_metrics(host: str, port: int, registry: CollectorRegistry) -> WSGIServer:
    """Serve a registry's page from a thread of its own; raises OSError where the port is taken."""
    server = _MetricsServer(host, port, registry)
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
