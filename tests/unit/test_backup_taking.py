"""Taking Qdrant: when its snapshots stand, so that other stores may be taken while they are fetched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from plinth.backup.config import Config, QdrantStore, Repository
from plinth.backup.manifest import Measure
from plinth.backup.session import Work
from plinth.backup.stores.qdrant import probe_queries
from plinth.backup.stores.qdrant.backup import Taking, TakingMeanwhile
from plinth.backup.stores.qdrant.node_client import Journal, Node
from plinth.backup.wait_limits import Patience
from plinth.embedded import ENGINE
from plinth.qdrant.client import QdrantError

UUIDS = [f"{digit:x}{digit:x}000000-0000-4000-8000-00000000000{digit % 10}" for digit in range(16)]


def answer(path: str, names: list[str]) -> Any:
    """What an embedded engine with empty collections says."""
    if path == "/collections":
        return {"collections": [{"name": name} for name in names]}
    if path == "/aliases":
        return {"aliases": []}
    if path.endswith("/scroll"):
        return {"points": []}
    if path.endswith("/count"):
        return {"count": 0}
    return {"config": {"params": {}}, "payload_schema": {}}


class Engine(Node):
    """Collections whose snapshots take no time; ``fetching`` is called while each one is fetched."""

    def __init__(self, names: list[str], fetching: Callable[[str], None]) -> None:
        super().__init__("http://nowhere")
        self.names, self.fetching = names, fetching

    def banner(self) -> str:
        return f"{ENGINE.partition(' (')[0]} 1.18.3"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return answer(path, self.names)

    def take(
        self, path: str, to: Path, journal: Journal, stands: Callable[[], None] = lambda: None
    ) -> tuple[str | None, Measure]:
        stands()
        self.fetching(path.split("/")[2])
        to.write_bytes(b"snapshot")
        measure = Measure()
        measure.add(b"snapshot")
        return None, measure


def taken(
    tmp_path: Path, names: list[str], late: str | None = None, broken: str | None = None
) -> list[tuple[str, bool]]:
    """Each snapshot that was fetched, and whether all stood by then; ``late`` is made while the first is fetched."""
    fetched = []

    def fetching(name: str) -> None:
        fetched.append((name, taking.stands.is_set()))
        if late and late not in engine.names:
            engine.names.append(late)
        if name == broken:
            raise QdrantError("it broke")

    engine = Engine(names, fetching)
    taking = Taking(tmp_path / "stage", tmp_path, lambda _: None, [engine])
    part = taking.take()
    assert part
    assert {each.name for each in part.collections if each.shards} == {name for name, _ in fetched} - {broken}
    return fetched


@pytest.mark.parametrize(
    ("names", "late", "broken", "expected"),
    [
        (["a"], None, None, [("a", True)]),
        (["a", "b"], None, None, [("a", False), ("b", True)]),
        # One that came before the last stood belongs to the set, and the others wait for it too.
        (["a", "b"], "c", None, [("a", False), ("b", False), ("c", True)]),
        (["a", "b"], None, "b", [("a", False), ("b", True)]),
    ],
)
def test_the_snapshots_stand_once_the_last_is_made(
    tmp_path: Path, names: list[str], late: str | None, broken: str | None, expected: list[tuple[str, bool]]
) -> None:
    assert taken(tmp_path, names, late, broken) == expected


@contextmanager
def endless(asked: list[str]) -> Iterator[str]:
    """An engine whose snapshot does not end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/s.snapshot"):
                self.send_response(200)
                self.end_headers()
                while True:
                    self.wfile.write(bytes(1 << 16))
            names: Any = [] if self.path.endswith("/snapshots") else answer(self.path, ["a"])
            self.reply({"title": ENGINE.partition(" (")[0], "version": "1.18.3", "result": names})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            made = {"name": "s.snapshot"} if self.path.partition("?")[0].endswith("/snapshots") else None
            self.reply({"result": made or answer(self.path, ["a"])})

        def do_DELETE(self) -> None:
            asked.append(self.path)
            self.reply({"result": True})

        def reply(self, body: dict[str, Any]) -> None:
            content = orjson.dumps(body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Whoever gave up reads no more."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_a_taking_that_is_given_up_removes_its_snapshot_from_the_node(tmp_path: Path) -> None:
    asked: list[str] = []
    with endless(asked) as url:
        config = Config(
            directory=tmp_path,
            state=tmp_path / "state.json",
            repository=Repository(location="nowhere", password_file=tmp_path / "none"),
            qdrant=QdrantStore(urls=(url,)),
        )
        taking = TakingMeanwhile(Work(config, lambda _: None, 0, Patience(0, lambda _: None)), [Node(url)])
        taking.await_snapshots()
        taking.give_up()
    assert asked == ["/collections/a/snapshots/s.snapshot?wait=true"]
    assert not (tmp_path / "asked.json").exists()
    _, failures = taking.taken()
    assert "given up" in failures[0]


class Points:
    """Points in the order of a scroll."""

    def __init__(self, ids: list[int | str]) -> None:
        self.ids = sorted(ids, key=lambda id_: (isinstance(id_, str), id_))
        self.asked = 0

    def call(self, _method: str, _path: str, body: dict[str, Any]) -> Any:
        self.asked += 1
        offset = body["offset"]
        after = [id_ for id_ in self.ids if (isinstance(id_, str), id_) >= (isinstance(offset, str), offset)]
        return {"points": [{"id": id_} for id_ in after[: body["limit"]]]}


@pytest.mark.parametrize(
    "ids",
    [[], [0], [7], list(range(1000)), [10**12], UUIDS, UUIDS[3:5], [5, 70, *UUIDS[7:]], [2**63, UUIDS[15]]],
    ids=str,
)
def test_the_probe_set_asks_for_nothing_twice_and_misses_nothing(ids: list[int | str]) -> None:
    points, every = Points(ids), Points(ids)
    body = {"limit": probe_queries.PER_OFFSET}
    found = {
        point["id"]
        for offset in probe_queries.OFFSETS
        for point in every.call("POST", "", {**body, "offset": offset})["points"]
    }
    sampled = [point["id"] for point in probe_queries.sampled(points, "c")]  # type: ignore[arg-type]
    assert sampled == sorted(found, key=lambda id_: (isinstance(id_, str), id_))
    # Each request but the last brings one that no other did.
    assert points.asked <= len(found) + 1
