"""HTTP servers that say what a test wants them to say."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Answers(BaseHTTPRequestHandler):
    """What a server does with one request: a subclass has `do_GET` and the like, and nothing is printed."""

    def content(self) -> bytes:
        """The body of the request."""
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def reply(self, status: int, *documents: Any) -> None:
        """Answer with documents as JSON, a line each."""
        body = "\n".join(json.dumps(document) for document in documents).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


def serve(answers: type[Answers], port: int = 0) -> ThreadingHTTPServer:
    """A server on loopback that runs until :func:`close`; port 0 is any that is free."""
    server = ThreadingHTTPServer(("127.0.0.1", port), answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def close(server: ThreadingHTTPServer) -> None:
    """End it, and free its port."""
    server.shutdown()
    server.server_close()
