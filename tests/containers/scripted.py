"""A Docker engine that says what a test wants it to say."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from tests.answers import Answers, close, serve


class Engine:
    """``images`` are labels by reference, ``details`` what else the engine tells of them.

    ``posts`` and ``bodies`` are what was asked for, ``removed`` what was deleted. ``volumes`` holds the files of each
    container, with the name of the volume that they are in; ``refused`` and ``refused_start`` are what a question or a
    start is refused with.
    """

    def __init__(self, images: Mapping[str, dict[str, str] | None] | None = None) -> None:
        self.images = dict(images or {})
        self.details: Mapping[str, Mapping[str, Any]] = {}
        self.containers: list[dict[str, Any]] = []
        self.networks: list[dict[str, Any]] = []
        self.volumes: dict[str, tuple[str, dict[str, str]]] = {}
        self.capacity = {"NCPU": 64, "MemTotal": 1 << 40}
        self.ulimits: list[dict[str, Any]] = []
        self.refused: str | None = None
        self.refused_start: str | None = None
        self.printed = b""
        self.posts: list[str] = []
        self.bodies: list[bytes] = []
        self.removed: list[str] = []
        self.answer_to_post: list[dict[str, Any]] = []
        engine = self

        class Api(Answers):
            def do_GET(self) -> None:
                if engine.refused:
                    self.reply(400, {"message": engine.refused})
                elif self.path == "/version":
                    self.reply(200, {"Version": "28.0"})
                elif self.path == "/info":
                    self.reply(200, engine.capacity)
                elif self.path.partition("?")[0] == "/containers/json":
                    of_loads = "plinth.load" in unquote(self.path)
                    self.reply(200, [one for one in engine.containers if ("plinth.load" in one["Labels"]) == of_loads])
                elif self.path.partition("?")[0] == "/networks":
                    self.reply(200, engine.networks)
                elif self.path.startswith("/containers/"):
                    self.of_container(*self.path.partition("?")[0].split("/")[2:4])
                elif (reference := unquote(self.path).removeprefix("/images/").removesuffix("/json")) in engine.images:
                    self.reply(
                        200, {"Config": {"Labels": engine.images[reference]}, **engine.details.get(reference, {})}
                    )
                else:
                    self.reply(404, {"message": "no such image"})

            def of_container(self, id_: str, what: str) -> None:
                volume, files = engine.volumes.get(id_, ("", {}))
                if what == "json":
                    mounts = [{"Destination": "/etc/plinth", "Name": volume}] if volume else []
                    self.reply(200, {"Mounts": mounts, "HostConfig": {"Ulimits": engine.ulimits}})
                elif what == "logs":
                    self.send_bytes(b"\1\0\0\0" + len(engine.printed).to_bytes(4) + engine.printed)
                else:
                    self.send_bytes(packed(files))

            def send_bytes(self, content: bytes) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_DELETE(self) -> None:
                engine.removed.append(self.path.partition("?")[0])
                self.reply(204)

            def do_POST(self) -> None:
                engine.posts.append(self.path)
                engine.bodies.append(self.content())
                if self.path.startswith("/containers/create"):
                    self.reply(201, {"Id": "made"})
                elif self.path.endswith("/start"):
                    self.reply(400, {"message": engine.refused_start or "exec: no such file or directory"})
                else:
                    self.reply(200, *engine.answer_to_post)

        self.server = serve(Api)

    @property
    def host(self) -> str:
        return f"tcp://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        close(self.server)


def packed(files: Mapping[str, str]) -> bytes:
    """Files as the archive of a directory."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return archive.getvalue()
