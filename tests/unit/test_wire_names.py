"""Names on the wire: each arrives whole, at its own path, or is refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plinth.backup.stores.qdrant.node_client import Journal, Node
from plinth.errors import UserError
from plinth.load.protocols.rest import Rest
from plinth.migrate.sources.chroma import ChromaOptions, open_chroma
from plinth.qdrant import server_state
from plinth.qdrant.apply import apply
from plinth.qdrant.client import Qdrant, QdrantError, collection_path
from plinth.qdrant.plan import DropIndex, Plan
from plinth.targets.docker.engine_api import Daemon
from tests.answers import Answers, close, serve

NAMES = (
    "a/b",
    "a?b#c",
    "100%",
    "%2e%2e",
    "\x1b[2Jcleared",
    "a\r\nHost: evil",
    "\x00",
    "名前 é",
    "a b",
    "..a",
    ";",
    "\u202e",
)
UNSENDABLE = (".", "..", "", "\ud800")


class Server:
    """Answers everything with what a test sets, and remembers what was asked, as it came."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.result: Any = {}
        self.names: list[str] = []
        server = self

        class Qdrant(Answers):
            def answer(self) -> None:
                server.asked.append(f"{self.command} {self.path}")
                self.content()
                result = (
                    {"collections": [{"name": n} for n in server.names]}
                    if self.path == "/collections"
                    else server.result
                )
                self.reply(200, {"result": result, **(server.result if isinstance(server.result, dict) else {})})

            do_GET = do_PUT = do_POST = do_DELETE = answer

        self._http = serve(Qdrant)
        self.port = self._http.server_address[1]

    def close(self) -> None:
        close(self._http)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def described(client: Qdrant, name: str) -> None:
    client.collection(name)


def dropped_index(client: Qdrant, name: str) -> None:
    apply(client, Plan((DropIndex(name, name),)))


def load_request(client: Qdrant, name: str) -> None:
    client.call("GET", Rest(name, {}, None)._points)  # type: ignore[arg-type]


@pytest.mark.parametrize("ask", [described, dropped_index, load_request], ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_arrives_whole(server: Server, ask: Callable[[Qdrant, str], None], name: str) -> None:
    server.asked.clear()
    with Qdrant(f"http://127.0.0.1:{server.port}") as client:
        ask(client, name)
    (asked,) = server.asked
    parts = asked.split(" ")[1].partition("?")[0].split("/")
    assert unquote(parts[2]) == name
    if ask is dropped_index:
        assert [unquote(part) for part in parts[3:]] == ["index", name]


@pytest.mark.parametrize("ask", [described, dropped_index], ids=lambda ask: ask.__name__)
@pytest.mark.parametrize("name", UNSENDABLE, ids=ascii)
def test_a_name_that_no_address_holds_is_refused_before_it_is_sent(
    server: Server, ask: Callable[[Qdrant, str], None], name: str
) -> None:
    server.asked.clear()
    with (
        Qdrant(f"http://127.0.0.1:{server.port}") as client,
        pytest.raises(UserError, match="cannot be part of an address"),
    ):
        ask(client, name)
    assert server.asked == []


def test_one_such_name_keeps_no_other_collection_from_being_compared(server: Server) -> None:
    server.names, server.result = ["..", "."], {"aliases": []}
    with Qdrant(f"http://127.0.0.1:{server.port}") as client:
        assert server_state.read(client).collections == {}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_snapshots_name_is_as_strange_as_its_collections(server: Server, name: str, tmp_path: Path) -> None:
    server.asked.clear()
    snapshot = f"{name}-1.snapshot"
    server.result = {"name": snapshot, "checksum": None}
    journal = Journal(tmp_path)
    journal.asked = lambda *_: None  # type: ignore[method-assign,assignment]
    with Node(f"http://127.0.0.1:{server.port}") as node:
        node.take(f"{collection_path(name)}/snapshots", tmp_path / "to", journal)
    paths = [asked.split(" ")[1].partition("?")[0] for asked in server.asked]
    assert [[unquote(part) for part in path.split("/")[2:]] for path in paths] == [
        [name, "snapshots"],
        [name, "snapshots", snapshot],
        [name, "snapshots", snapshot],
    ]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_chroma_and_docker_are_asked_for_what_was_named(server: Server, name: str) -> None:
    server.asked.clear()
    server.result = []
    with pytest.raises(Exception), open_chroma(ChromaOptions(f"http://127.0.0.1:{server.port}", "c", name, name)):  # noqa: B017,PT011
        pass
    assert [unquote(part) for part in server.asked[0].split(" ")[1].split("?")[0].split("/")[4:]] == [
        name,
        "databases",
        name,
        "collections",
    ]
    if "/" not in name:
        with Daemon(f"tcp://127.0.0.1:{server.port}") as daemon:
            daemon.has_image(f"registry.test/{name}:1")
        assert [unquote(part) for part in server.asked[-1].split(" ")[1].split("/")] == [
            "",
            "images",
            "registry.test",
            f"{name}:1",
            "json",
        ]


def test_an_image_does_not_climb_to_another_path_of_the_docker_engine(server: Server) -> None:
    server.asked.clear()
    with Daemon(f"tcp://127.0.0.1:{server.port}") as daemon, pytest.raises(UserError, match="cannot be part"):
        daemon.has_image("../containers/x")
    assert server.asked == []


@pytest.mark.parametrize("path", ["/a\x1bb", "/a\nb", "/\ud800", "http://[::1", "//h:port/x"], ids=ascii)
def test_an_address_that_cannot_be_sent_is_a_sentence(path: str) -> None:
    with Qdrant("http://127.0.0.1:1") as client, pytest.raises(QdrantError):
        client.call("GET", path)


@given(st.text())
@example("..")
@example("%2e%2e")
@example("a/../b")
def test_every_name_is_one_segment_of_the_path_or_refused(name: str) -> None:
    try:
        path = collection_path(name)
    except QdrantError:
        assert name in UNSENDABLE or not _encodes(name)
        return
    sent = httpx.Client(base_url="http://h.test")._merge_url(f"{path}/points?wait=true").raw_path.decode()
    assert sent == f"{path}/points?wait=true"
    assert [unquote(part) for part in sent.partition("?")[0].split("/")] == ["", "collections", name, "points"]


def _encodes(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
