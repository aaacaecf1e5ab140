"""Names of collections, aliases, vectors, fields and snapshots are hostile text, and never a path."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message

from plinth.embedded import names
from plinth.embedded.app import application
from plinth.embedded.config import OPTIMIZERS, Config
from plinth.embedded.engine_client import EngineProxy
from plinth.embedded.errors import ApiError
from tests.conftest import KEY, Server
from tests.contract.raw import exchanged, head

VECTORS = {"vectors": {"size": 2, "distance": "Dot"}}
HARMLESS = (
    ".deleted-x",
    ".deleted-",
    "aliases.json",
    "collection-0",
    "%2e%2e",
    "-rf $(id)",
    "\x1b[2Jcleared",
    "a\r\nX y",
    "[red]x",
    "e\u0301",
    "\u202egnp",
    "ü" * 255,
)
REFUSED = (
    "",
    ".",
    "..",
    "a/b",
    "../x",
    "a\\b",
    "a\0b",
    "a\x1fb",
    "<a",
    "a>",
    "a:b",
    'a"b',
    "a|b",
    "a?b",
    "a*b",
    "x" * 256,
)


class Front:
    """The application over a directory, asked in the process: a path is what it is, no client tidies it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loop = asyncio.new_event_loop()
        self.start()

    def start(self) -> None:
        config = Config("127.0.0.1", 0, self.directory / "storage", self.directory / "snapshots", optimizers=OPTIMIZERS)
        self.app = application(config)
        self._life = self.app.router.lifespan_context(self.app)
        self.loop.run_until_complete(self._life.__aenter__())

    def stop(self) -> None:
        """As a server does it; the engines are gone, and what waited for them ends."""
        self.loop.run_until_complete(self._life.__aexit__(None, None, None))
        self.loop.run_until_complete(asyncio.sleep(0.01))

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return self.loop.run_until_complete(self._ask(method, path, b"" if body is None else json.dumps(body).encode()))

    async def _ask(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)

        scope = {"type": "http", "method": method, "path": path, "raw_path": quote(path).encode(), "root_path": ""}
        scope |= {
            "query_string": b"",
            "headers": [(b"host", b"h")],
            "state": {},
            "http_version": "1.1",
            "scheme": "http",
        }
        await self.app(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in messages)
        try:
            return messages[0]["status"], json.loads(content)
        except ValueError:
            return messages[0]["status"], content.decode()


@pytest.fixture
def front(tmp_path: Path) -> Any:
    directory = tmp_path / "outer" / "engine"
    directory.mkdir(parents=True)
    made = Front(directory)
    yield made
    made.stop()


def outside(front: Front) -> list[str]:
    """What lies around the engine's two directories, and in their roots what has no name that we give."""
    around = [path.relative_to(front.directory.parent) for path in front.directory.parent.glob("*")]
    around += [path.relative_to(front.directory.parent) for path in front.directory.glob("*")]
    for root in (front.directory / "storage", front.directory / "storage/embedded", front.directory / "snapshots"):
        around += [Path(path.name) for path in root.glob("*") if not re.fullmatch(r"[a-z0-9_-]+", path.name)]
    return sorted({str(path) for path in around})


OURS = ["aliases.json", "embedded", "engine", "engine/snapshots", "engine/storage"]


@pytest.mark.parametrize("name", HARMLESS)
def test_a_name_that_a_real_server_takes_is_a_collection_like_any_other(front: Front, name: str) -> None:
    path = f"/collections/{name}"
    assert front.ask("PUT", path, VECTORS)[0] == 200
    assert front.ask("PUT", f"{path}/points", {"points": [{"id": 1, "vector": [1, 2]}]})[0] == 200
    assert front.ask("PUT", f"{path}/index", {"field_name": "t", "field_schema": "keyword"})[0] == 200
    status, created = front.ask("POST", f"{path}/snapshots")
    assert status == 200
    assert "/" not in created["result"]["name"]
    change = {"actions": [{"create_alias": {"alias_name": f"{name[:250]}-too", "collection_name": name}}]}
    assert front.ask("POST", "/collections/aliases", change)[0] == 200
    front.stop()
    front.start()
    assert front.ask("GET", "/collections")[1]["result"]["collections"] == [{"name": name}]
    assert front.ask("POST", f"{path}/points/count", {})[1]["result"]["count"] == 1
    assert front.ask("POST", f"/collections/{name[:250]}-too/points/count", {})[1]["result"]["count"] == 1
    assert [entry["name"] for entry in front.ask("GET", f"{path}/snapshots")[1]["result"]] == [
        created["result"]["name"]
    ]
    families = list(text_string_to_metric_families(front.ask("GET", "/metrics")[1]))
    assert {s.labels["id"] for f in families if f.name == "collection_points" for s in f.samples} == {name}
    located = front.directory / "snapshots" / names.directory(name) / created["result"]["name"]
    assert front.ask("PUT", f"{path}/snapshots/recover", {"location": f"file://{located}"})[0] == 200
    assert front.ask("DELETE", path)[1]["result"] is True
    assert front.ask("PUT", f"{path}/snapshots/recover", {"location": f"file://{located}"})[0] == 200
    assert front.ask("POST", f"{path}/points/count", {})[1]["result"]["count"] == 1
    assert set(outside(front)) <= set(OURS)


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_none_can_have_is_refused_by_creation_and_by_recovery(front: Front, name: str) -> None:
    front.ask("PUT", "/collections/good", VECTORS)
    snapshot = front.ask("POST", "/collections/good/snapshots")[1]["result"]["name"]
    located = front.directory / "snapshots" / names.directory("good") / snapshot
    for path, body in (("", VECTORS), ("/snapshots/recover", {"location": f"file://{located}"})):
        status, answer = front.ask("PUT", f"/collections/{name}{path}", body)
        assert 400 <= status < 500 or status == 501, answer
    assert front.ask("GET", "/collections")[1]["result"]["collections"] == [{"name": "good"}]
    assert set(outside(front)) <= set(OURS)


@pytest.mark.parametrize("path", ["%2e%2e", "..", ".", "%2e", "..%2fx", "%2e%2e%2f%2e%2e%2fx", "a%00b"])
def test_no_path_on_the_wire_names_what_is_refused(embedded: Callable[..., Server], path: str) -> None:
    server = embedded()
    body = json.dumps(VECTORS).encode()
    status, _ = exchanged(server, head("PUT", f"/collections/{path}", KEY, Content_Length=len(body)) + body)
    assert 400 <= status < 500 or status == 501
    assert not list((server.directory / "storage/embedded").glob("*"))


@pytest.mark.parametrize("name", ["x/../../../../esc", "../x", "a\0b", "y" * 201, "ü" * 101, "a:b"])
@pytest.mark.parametrize("kind", ["vectors", "sparse_vectors"])
def test_a_vector_name_that_would_be_a_path_is_refused_before_anything_is_made(
    front: Front, name: str, kind: str
) -> None:
    body = {"vectors": {"v": VECTORS["vectors"]}, kind: {name: VECTORS["vectors"] if kind == "vectors" else {}}}
    assert front.ask("PUT", "/collections/c", body)[0] == 422
    assert front.ask("GET", "/collections")[1]["result"]["collections"] == []
    assert set(outside(front)) <= set(OURS)


@pytest.mark.parametrize(
    "section",
    [
        {"optimizers_config": {"deleted_threshold": "x"}},
        {"hnsw_config": {"m": "x"}},
        {"vectors": {"size": 2, "distance": "Dot", "datatype": "no"}},
        {"vectors": {"size": 2, "distance": "Dot", "hnsw_config": {"m": []}}},
        {"vectors": {"v": 7}},
        {"sparse_vectors": {"s": 7}},
    ],
)
def test_a_configuration_that_the_engine_does_not_take_is_the_callers_fault(front: Front, section: Any) -> None:
    status, answer = front.ask("PUT", "/collections/c", VECTORS | section)
    assert 400 <= status < 500, answer
    assert front.ask("GET", "/collections")[1]["result"]["collections"] == []


async def fails(_: EngineProxy) -> None:
    raise ApiError(500, "it does not open")


def test_names_that_differ_in_case_or_normal_form_alone_are_two(front: Front) -> None:
    pairs = ("a", "A", "\u00e9", "e\u0301")
    for name in pairs:
        assert front.ask("PUT", f"/collections/{name}", VECTORS)[0] == 200
    assert {entry["name"] for entry in front.ask("GET", "/collections")[1]["result"]["collections"]} == set(pairs)


def test_a_collection_that_does_not_open_is_not_left_behind(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(EngineProxy, "start", fails)
        assert front.ask("PUT", "/collections/c", VECTORS)[0] == 500
    assert front.ask("GET", "/collections")[1]["result"]["collections"] == []
    assert front.ask("GET", "/metrics")[0] == 200
    assert front.ask("PUT", "/collections/c", VECTORS)[0] == 200


@pytest.mark.parametrize(
    "field", ["../../../x", '"../../../x"', '"/etc/x"', ".", "..", '"a\x1b"', '"%s"' % ("f" * 300), ""]
)
def test_a_payload_field_is_never_a_path(front: Front, field: str) -> None:
    front.ask("PUT", "/collections/c", VECTORS)
    status, answer = front.ask("PUT", "/collections/c/index", {"field_name": field, "field_schema": "keyword"})
    assert status in (200, 400), answer
    assert front.ask("PUT", "/collections/c/points", {"points": [{"id": 1, "vector": [1, 2]}]})[0] == 200
    front.stop()
    front.start()
    assert front.ask("POST", "/collections/c/points/count", {})[1]["result"]["count"] == 1
    assert not list(front.directory.parent.rglob("x"))
    assert set(outside(front)) <= set(OURS)


@pytest.mark.parametrize("alias", ["", "a" * 256, 7, None, {"a": 1}, ["x"]])
def test_an_alias_is_text(front: Front, alias: Any) -> None:
    front.ask("PUT", "/collections/c", VECTORS)
    for action in (
        {"create_alias": {"alias_name": alias, "collection_name": "c"}},
        {"delete_alias": {"alias_name": alias}},
        {"rename_alias": {"old_alias_name": alias, "new_alias_name": "b"}},
        alias,
    ):
        assert 400 <= front.ask("POST", "/collections/aliases", {"actions": [action]})[0] < 500
    assert front.ask("GET", "/aliases")[1]["result"]["aliases"] == []


def old_layout(front: Front, name: str, count: int) -> None:
    """A collection with points and a snapshot, as releases before 0.2 left them."""
    path = f"/collections/{name}"
    front.ask("PUT", path, VECTORS)
    points = [{"id": i, "vector": [i, 1]} for i in range(count)]
    front.ask("PUT", f"{path}/points", {"points": points})
    front.ask("POST", f"{path}/snapshots")
    front.stop()
    for root in (front.directory / "storage/embedded", front.directory / "snapshots"):
        (root / names.directory(name)).rename(root / quote(name, safe=""))
    front.start()


@pytest.mark.parametrize("name", ["trades", "Trades", ".deleted-keep", "aliases.json", "é\x1b[2J"])
def test_what_the_old_layout_left_opens_with_its_points_and_snapshots(front: Front, name: str) -> None:
    old_layout(front, name, 3)
    # what a deletion that was cut off left in the old layout
    doomed = front.directory / "storage/embedded/.deleted-gone"
    doomed.mkdir()
    (doomed / "collection.json").write_text(json.dumps({"name": "gone", "config": {}, "indexes": {}}))
    front.stop()
    front.start()
    assert front.ask("GET", "/collections")[1]["result"]["collections"] == [{"name": name}]
    assert front.ask("POST", f"/collections/{name}/points/count", {})[1]["result"]["count"] == 3
    assert len(front.ask("GET", f"/collections/{name}/snapshots")[1]["result"]) == 1
    assert not doomed.exists()
    assert set(outside(front)) <= set(OURS)


def test_a_migration_that_was_cut_off_between_its_two_renames_goes_on(front: Front) -> None:
    old_layout(front, "C", 2)
    front.stop()
    storage = front.directory / "storage/embedded"
    # The snapshots are at their new place already.
    (storage / names.directory("C")).rename(storage / "C")
    front.start()
    assert front.ask("POST", "/collections/C/points/count", {})[1]["result"]["count"] == 2
    assert len(front.ask("GET", "/collections/C/snapshots")[1]["result"]) == 1


def archive(path: Path, members: list[tuple[tarfile.TarInfo, Path | None]]) -> Path:
    with tarfile.open(path, "w") as made:
        for member, source in members:
            if source is None:
                made.addfile(member)
            else:
                with source.open("rb") as content:
                    made.addfile(member, content)
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def plain(name: str, source: Path) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = source.stat().st_size
    return member


def hostile(victim: Path, manifest: Path, kind: str) -> list[tuple[tarfile.TarInfo, Path | None]]:
    good: list[tuple[tarfile.TarInfo, Path | None]] = [(plain("manifest.json", manifest), manifest)]
    directory = tarfile.TarInfo("shard")
    directory.type = tarfile.DIRTYPE
    return {
        "parent": [*good, (plain("../../escaped", manifest), manifest)],
        "absolute": [*good, (plain(str(victim.parent / "escaped"), manifest), manifest)],
        "symbolic link": [
            *good,
            (link("shard", str(victim.parent), tarfile.SYMTYPE), None),
            (plain("shard/escaped", manifest), manifest),
        ],
        "hard link": [*good, (directory, None), (link("shard/x", str(victim), tarfile.LNKTYPE), None)],
        "manifest is a link": [(link("manifest.json", str(manifest), tarfile.SYMTYPE), None), (directory, None)],
        "device": [*good, (directory, None), (link("shard/x", "", tarfile.CHRTYPE), None)],
        "pipe": [*good, (directory, None), (link("shard/x", "", tarfile.FIFOTYPE), None)],
        "no shard": good,
        "no manifest": [(directory, None)],
        "twice": [*good, *good, (directory, None)],
        "compressed": [],
    }[kind]


HOSTILE = (
    "parent", "absolute", "symbolic link", "hard link", "manifest is a link", "device", "pipe", "no shard",
    "no manifest", "twice", "compressed",
)  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_snapshot_is_refused_and_writes_nothing_outside(front: Front, kind: str) -> None:
    front.ask("PUT", "/collections/c", VECTORS)
    front.ask("PUT", "/collections/c/points", {"points": [{"id": 1, "vector": [1, 2]}]})
    victim = front.directory.parent.parent / "victim"
    victim.write_text("as it was")
    manifest = front.directory.parent.parent / "manifest.json"
    manifest.write_text(json.dumps({"format": "plinth-embedded-1", "config": {}, "indexes": {}}))
    snapshots = front.directory / "snapshots"
    snapshots.mkdir(exist_ok=True)
    path = archive(snapshots / "evil.snapshot", hostile(victim, manifest, kind))
    if kind == "compressed":
        with tarfile.open(path, "w:gz") as made:
            made.add(manifest, "manifest.json")
    status, answer = front.ask("PUT", "/collections/c/snapshots/recover", {"location": f"file://{path}"})
    assert status == 400, answer
    assert front.ask("PUT", "/collections/new/snapshots/recover", {"location": f"file://{path}"})[0] == 400
    assert victim.read_text() == "as it was"
    assert victim.stat().st_nlink == 1
    assert not list(front.directory.parent.parent.rglob("escaped"))
    assert front.ask("POST", "/collections/c/points/count", {})[1]["result"]["count"] == 1
    assert front.ask("GET", "/collections")[1]["result"]["collections"] == [{"name": "c"}]
    path.unlink()
    assert not list((front.directory / "storage").glob(".recover-*"))


@pytest.mark.parametrize(
    ("location", "status"),
    [
        ("file:///etc/passwd", 403),
        ("file://{snapshots}/../../etc/passwd", 403),
        ("file://{snapshots}/%2e%2e/%2e%2e/etc/passwd", 403),
        ("file://{snapshots}/linked", 403),
        ("file://{snapshots}/none.snapshot", 400),
        ("file://{snapshots}", 400),
        ("/etc/passwd", 400),
        ("http://127.0.0.1:1/x", 501),
        ("https://127.0.0.1:1/x", 501),
        ("FILE:///etc/passwd", 403),
        ("", 400),
        (None, 400),
        ({"a": 1}, 400),
    ],
)
def test_recovery_reads_nothing_outside_the_snapshots(front: Front, location: Any, status: int) -> None:
    snapshots = front.directory / "snapshots"
    snapshots.mkdir(exist_ok=True)
    (snapshots / "linked").symlink_to("/etc/passwd")
    given = location.format(snapshots=snapshots) if isinstance(location, str) else location
    assert front.ask("PUT", "/collections/c/snapshots/recover", {"location": given})[0] == status
    assert front.ask("GET", "/collections")[1]["result"]["collections"] == []


@pytest.mark.parametrize("snapshot", ["..", ".", "../x", "collection.json", "x.checksum", "%2e%2e", "*", "[a-z]*", ""])
def test_a_snapshot_is_one_of_the_listed_ones(front: Front, snapshot: str) -> None:
    front.ask("PUT", "/collections/c", VECTORS)
    name = front.ask("POST", "/collections/c/snapshots")[1]["result"]["name"]
    for given in (snapshot, f"{name}.checksum"):
        for method in ("GET", "DELETE"):
            if given:
                assert front.ask(method, f"/collections/c/snapshots/{given}")[0] in (404, 501)
    assert len(front.ask("GET", "/collections/c/snapshots")[1]["result"]) == 1


NAMES = st.one_of(st.sampled_from(HARMLESS), st.sampled_from(REFUSED), st.text(max_size=8))


class Names(RuleBasedStateMachine):
    """Whatever collections are called: nothing outside changes, the engine starts again, points survive."""

    directory: Path

    @initialize()
    def begin(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        (self.directory / "engine").mkdir(parents=True)
        self.front = Front(self.directory / "engine")
        self.points: dict[str, int] = {}

    @precondition(lambda self: len(self.points) < 4)
    @rule(name=NAMES)
    def create(self, name: str) -> None:
        status, _ = self.front.ask("PUT", f"/collections/{name}", VECTORS)
        if status == 200:
            self.points[name] = 0

    @precondition(lambda self: self.points)
    @rule(data=st.data())
    def upsert(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.points)))
        point = {"id": self.points[name], "vector": [1, 2]}
        assert self.front.ask("PUT", f"/collections/{name}/points", {"points": [point]})[0] == 200
        self.points[name] += 1

    @precondition(lambda self: self.points)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.points)))
        assert self.front.ask("DELETE", f"/collections/{name}")[1]["result"] is True
        del self.points[name]

    @precondition(lambda self: self.points)
    @rule(alias=NAMES, data=st.data())
    def alias(self, alias: str, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.points)))
        action = {"create_alias": {"alias_name": alias, "collection_name": name}}
        assert self.front.ask("POST", "/collections/aliases", {"actions": [action]})[0] < 500

    @rule()
    def restart(self) -> None:
        self.front.stop()
        self.front.start()

    @invariant()
    def everything_is_there_and_nothing_else(self) -> None:
        listed = {entry["name"] for entry in self.front.ask("GET", "/collections")[1]["result"]["collections"]}
        assert listed == set(self.points)
        for name, count in self.points.items():
            assert self.front.ask("POST", f"/collections/{name}/points/count", {})[1]["result"]["count"] == count
        assert set(outside(self.front)) <= set(OURS)

    def teardown(self) -> None:
        if hasattr(self, "front"):
            self.front.stop()


def test_no_name_reaches_outside_or_keeps_the_engine_from_starting(tmp_path: Path) -> None:
    Names.directory = tmp_path / "outer"
    Names.TestCase.settings = settings(
        max_examples=8, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
    )
    Names.TestCase().runTest()
