"""A Docker engine that says what a test wants it to say."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Engine:
    """``images`` are labels by reference; ``posts`` and ``bodies`` what was asked for, ``removed`` what was deleted."""

    def __init__(self, images: Mapping[str, dict[str, str] | None] | None = None) -> None:
        self.images = dict(images or {})
        self.containers: list[dict[str, Any]] = []
        self.posts: list[str] = []
        self.bodies: list[bytes] = []
        self.removed: list[str] = []
        self.answer_to_post: list[dict[str, Any]] = []
        engine = self

        class Api(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/version":
                    self.reply(200, {"Version": "28.0"})
                elif self.path.partition("?")[0] == "/containers/json":
                    self.reply(200, engine.containers)
                elif (reference := self.path.removeprefix("/images/").removesuffix("/json")) in engine.images:
                    self.reply(200, {"Config": {"Labels": engine.images[reference]}})
                else:
                    self.reply(404, {"message": "no such image"})

            def do_DELETE(self) -> None:
                engine.removed.append(self.path)
                self.reply(204)

            def do_POST(self) -> None:
                engine.posts.append(self.path)
                engine.bodies.append(self.rfile.read(int(self.headers.get("content-length", 0))))
                self.reply(200, *engine.answer_to_post)

            def reply(self, status: int, *documents: Any) -> None:
                body = "\n".join(json.dumps(document) for document in documents).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def host(self) -> str:
        return f"tcp://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
