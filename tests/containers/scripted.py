"""A Docker engine that says what a test wants it to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from tests.answers import Answers, close, serve


class Engine:
    """``images`` are labels by reference, ``details`` what else the engine tells of them.

    ``posts`` and ``bodies`` are what was asked for, ``removed`` what was deleted.
    """

    def __init__(self, images: Mapping[str, dict[str, str] | None] | None = None) -> None:
        self.images = dict(images or {})
        self.details: Mapping[str, Mapping[str, Any]] = {}
        self.containers: list[dict[str, Any]] = []
        self.posts: list[str] = []
        self.bodies: list[bytes] = []
        self.removed: list[str] = []
        self.answer_to_post: list[dict[str, Any]] = []
        engine = self

        class Api(Answers):
            def do_GET(self) -> None:
                if self.path == "/version":
                    self.reply(200, {"Version": "28.0"})
                elif self.path.partition("?")[0] == "/containers/json":
                    self.reply(200, engine.containers)
                elif (reference := unquote(self.path).removeprefix("/images/").removesuffix("/json")) in engine.images:
                    self.reply(
                        200, {"Config": {"Labels": engine.images[reference]}, **engine.details.get(reference, {})}
                    )
                else:
                    self.reply(404, {"message": "no such image"})

            def do_DELETE(self) -> None:
                engine.removed.append(self.path)
                self.reply(204)

            def do_POST(self) -> None:
                engine.posts.append(self.path)
                engine.bodies.append(self.content())
                self.reply(200, *engine.answer_to_post)

        self.server = serve(Api)

    @property
    def host(self) -> str:
        return f"tcp://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        close(self.server)
