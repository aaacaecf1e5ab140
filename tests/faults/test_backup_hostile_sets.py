"""What somebody else wrote: sets planted in the repository, and collections of any name. Nothing is written outside."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from plinth.backup import drill, inspection, restore
from plinth.backup import run as backup_run
from plinth.backup.restore_source import Wish
from plinth.backup.session import BackupError
from plinth.printable import visible
from tests.faults.world import Backups, Live

KEY = b"ssh-ed25519 AAAA planted\n"


def plant(made: Backups, paths: dict[str, bytes], **changed: Any) -> None:
    """Store what looks like a complete set of Plinth's, with a Grafana at the last of the paths."""
    stage = made.directory / "planted"
    for path, content in paths.items():
        to = stage / "in" / path
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(content)
    told = {
        "name": "t",
        "plinth": "1",
        "began_at": 1.0,
        "ended_at": 2.0,
        "stores": {"grafana": "ok"},
        "grafana": {"path": list(paths)[-1]},
        "pieces": [
            {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in paths.items()
        ],
        **changed,
    }
    (stage / "in" / "manifest.json").write_text(json.dumps(told))
    environment = {**os.environ, "RESTIC_PASSWORD": "correct horse"}
    argv = ["restic", "-r", str(made.repository), "--no-cache", "backup", "--host", "t", "--tag", "t,complete"]
    subprocess.run([*argv, str(stage / "in")], env=environment, check=True, capture_output=True)


PLANTED = (
    "escaped/authorized_keys",
    "../../escaped/authorized_keys",
    "grafana/../../../escaped/authorized_keys",
    "grafana/grafana.db/authorized_keys",
)


@pytest.mark.parametrize("path", PLANTED)
def test_a_planted_set_writes_nowhere(backups: Callable[..., Backups], path: str) -> None:
    made = backups(qdrant=None, redis=None)
    backup_run.run(made.config, made.say)
    plant(made, {os.path.normpath(path) if path.startswith("..") else path: KEY})
    before = everything(made.directory)
    for act in (
        lambda: drill.run(made.config, made.say),
        lambda: restore.run(made.config, made.config, Wish(beside=True), made.say),
        lambda: inspection.verify(made.config, made.say),
    ):
        with pytest.raises(BackupError, match="is no path of"):
            act()
    assert [each for each in everything(made.directory) - before if "authorized_keys" in each.name] == []


def everything(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


def test_links_on_the_way_are_not_followed(backups: Callable[..., Backups]) -> None:
    made = backups(qdrant=None, redis=None)
    backup_run.run(made.config, made.say)
    outside = made.directory / "outside"
    outside.mkdir()
    wish, short = Wish(stores=("postgres",), beside=True), made.sets()[0]["snapshot"][:8]
    target = restore._identity(made.config)
    place = made.work / "restore" / f"{short}-{target}"
    place.mkdir(parents=True)
    (place / "postgres").symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        restore.run(made.config, made.config, wish, made.say)
    assert list(outside.iterdir()) == []


def test_a_file_that_is_longer_than_its_set_says_is_left(backups: Callable[..., Backups]) -> None:
    made = backups(qdrant=None, redis=None)
    backup_run.run(made.config, made.say)
    long = b"x" * (5 << 20)
    piece = {"path": "grafana/grafana.db", "size": 10, "sha256": hashlib.sha256(long).hexdigest()}
    plant(made, {"grafana/grafana.db": long}, pieces=[piece])
    assert "longer than its manifest says" in " ".join(drill.run(made.config, made.say).problems["grafana"])


NAMES = (
    "\x1b[2Jcleared",
    "new\nline",
    "nul\x00",
    "bell\x07",
    "del\x7f",
    ".",
    "..",
    "a/b",
    "../../etc",
    "a?b=c",
    "a#b",
    "a%b",
    "a%2Fb",
    "a b",
    "ünïcode",
    "\u202eevil",
    "[bold red]x[/]",
    "é" * 127,
    "x" * 255,
    "aliases.json",
    "=",
)


class Hostile(ThreadingHTTPServer):
    """A Qdrant of hostile names, as the embedded engine answers. ``left`` are the snapshots that it holds."""

    daemon_threads = True

    def __init__(self, names: list[Any], *, broken: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.names, self.broken = names, broken
        self.left: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: Hostile

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        parts = [unquote(part) for part in path.strip("/").split("/")]
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        match self.command, parts:
            case "GET", [""]:
                self._send({"title": "plinth embedded engine", "version": "1.18.3"})
            case "GET", ["collections"]:
                self._result({"collections": [{"name": name} for name in self.server.names]})
            case "GET", ["aliases"]:
                self._result({"aliases": []})
            case "GET", ["collections", name] if name in self.server.names:
                self._result({"config": {"params": {"vectors": {"size": 1, "distance": "Dot"}}}, "points_count": 0})
            case "POST", ["collections", name, "points", "scroll" | "query"] if name in self.server.names:
                self._result({"points": []})
            case "POST", ["collections", name, "points", "count"] if name in self.server.names:
                self._result({"count": 0})
            case "GET", ["collections", name, "snapshots"] if name in self.server.names:
                self._result(
                    [{"name": each, "creation_time": None} for each, of in self.server.left.items() if of == name]
                )
            case "POST", ["collections", name, "snapshots"] if name in self.server.names:
                snapshot = f"{name}-1.snapshot"
                self.server.left[snapshot] = name
                if self.server.broken == "answer":
                    self._send({"status": {"error": "broken"}}, 500)
                else:
                    self._result({"name": snapshot, "checksum": hashlib.sha256(b"data").hexdigest()})
            case "GET", ["collections", name, "snapshots", snapshot] if snapshot in self.server.left:
                if self.server.broken == "download":
                    self._send({"status": {"error": "broken"}}, 500)
                else:
                    self._bytes(b"data")
            case "DELETE", ["collections", name, "snapshots", snapshot] if snapshot in self.server.left:
                del self.server.left[snapshot]
                self._result(True)
            case _:
                self._send({"status": {"error": f"Not found: {self.path}"}}, 404)

    do_GET = do_POST = do_DELETE = _answer

    def _result(self, result: Any) -> None:
        self._send({"result": result, "status": "ok", "time": 0})

    def _send(self, told: Any, status: int = 200) -> None:
        self._bytes(json.dumps(told).encode(), status)

    def _bytes(self, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def hostile() -> Iterator[Callable[..., Hostile]]:
    servers: list[Hostile] = []

    def start(*names: Any, broken: str | None = None) -> Hostile:
        server = Hostile(list(names), broken=broken)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_no_name_of_a_collection_keeps_anything_else_out(
    backups: Callable[..., Backups], hostile: Callable[..., Hostile]
) -> None:
    server = hostile("good", "", *NAMES)
    made = backups(qdrant={"urls": [server.url]})
    taken = backup_run.run(made.config, made.say).manifest
    assert taken.qdrant
    assert taken.stores["redis"] == taken.stores["postgres"] == "ok"
    names = {each.name for each in taken.qdrant.collections if each.shards}
    # Taken, or named in one printable line.
    assert {"good", "\x1b[2Jcleared", "a/b", "a?b=c", "\u202eevil", "x" * 255} <= names
    left = {name for name in NAMES if name not in names}
    assert all(any(visible(name) in each for each in taken.failures) for name in left)
    assert all(each.isprintable() for each in (*taken.failures, *made.progress))
    assert server.left == {}
    assert not (made.work / "asked.json").exists()
    assert inspection.verify(made.config, made.say).problems == taken.failures


@pytest.mark.parametrize("broken", ["answer", "download"])
def test_a_try_that_fails_leaves_no_snapshot(
    backups: Callable[..., Backups], hostile: Callable[..., Hostile], broken: str
) -> None:
    server = hostile("one", "two", "\x1b[2Jthree", broken=broken)
    made = backups(qdrant={"urls": [server.url]})
    taken = backup_run.run(made.config, made.say).manifest
    assert taken.stores == {"qdrant": "incomplete", "redis": "ok", "postgres": "ok"}
    assert len(taken.failures) == 3
    assert server.left == {}


def test_an_engine_that_takes_such_a_name_is_backed_up(backups: Callable[..., Backups], live: Live) -> None:
    refused, name = False, "\x1b[2Jcleared"
    with live.node as node:
        path = "/collections/%1b%5B2Jcleared"
        try:
            node.call("PUT", path, {"vectors": {"size": 2, "distance": "Dot"}})
        except Exception:
            refused = True
        try:
            made = backups(postgres=None)
            taken = backup_run.run(made.config, made.say).manifest
            assert taken.complete
            assert taken.qdrant
            assert refused or name in {each.name for each in taken.qdrant.collections}
            assert node.call("GET", "/collections/trades_v1/snapshots") == []
        finally:
            if not refused:
                node.call("DELETE", path)
