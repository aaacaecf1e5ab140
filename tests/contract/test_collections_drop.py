"""`plinth collections drop` and `restore`, on each engine and on three nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from plinth.backup.config import QdrantStore
from plinth.cli import app
from plinth.cli import collections as command
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.paths import Home
from plinth.qdrant.client import Qdrant, QdrantError
from plinth.settings.loader import load_settings
from tests.cluster import Cluster
from tests.conftest import KEY, Server, real_qdrant
from tests.project import Environment

NAME = "dropped_v1"
# One that a file of the project declares.
MANAGED = "trades_v1"
Run = Callable[..., Result]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Environment(tmp_path / "p", {"plinth:target": "local"}).root


def runner(place: Path, servers: Sequence[Server], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `plinth collections` against these servers."""
    key = place / "key"
    key.write_text(KEY)
    urls = tuple(server.url for server in servers)
    store = QdrantStore(urls=urls, api_key_file=key, snapshots=servers[0].directory / "snapshots")

    @contextmanager
    def qdrant_of(*_: Any) -> Iterator[QdrantStore]:
        yield store

    stack = Stack("t", place, Home(place / ".plinth", place / ".plinth" / "t"), load_settings(place, "t"), None)  # type: ignore[arg-type]
    monkeypatch.setattr(command, "stack_of", lambda _env: stack)
    monkeypatch.setattr(command, "outputs_of", lambda _stack: {"qdrant": {"url": urls[0], "api_key": KEY}})
    monkeypatch.setattr("plinth.backup.environment_config.qdrant_of", qdrant_of)

    def run(*arguments: str) -> Result:
        said = CliRunner().invoke(app, ["collections", *arguments])
        if isinstance(said.exception, UserError):
            raise said.exception
        return said

    return run


def fill(client: Qdrant, name: str, **settings: Any) -> None:
    client.call("PUT", f"/collections/{name}", {"vectors": {"size": 4, "distance": "Cosine"}, **settings})
    index = {"field_name": "org", "field_schema": "keyword"}
    client.call("PUT", f"/collections/{name}/index?wait=true", index)
    points = [{"id": n, "vector": [1, n, 2, 3], "payload": {"org": f"o{n % 3}"}} for n in range(300)]
    client.call("PUT", f"/collections/{name}/points?wait=true", {"points": points})


@pytest.fixture
def client(server: Server) -> Iterator[Qdrant]:
    with Qdrant(server.url, KEY) as connected:
        fill(connected, NAME)
        fill(connected, MANAGED)
        yield connected
        for name in (NAME, MANAGED):
            connected.call("DELETE", f"/collections/{name}")


@pytest.fixture
def run(client: Qdrant, server: Server, place: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(place, [server], monkeypatch)


def snapshot_of(said: Result) -> str:
    """The directory, as a person would copy it from what was printed."""
    return "".join(said.output.split("Its snapshot is ")[1].split("; `plinth")[0].split())


def test_a_dropped_collection_comes_back_with_its_points_indexes_and_aliases(
    run: Run, client: Qdrant, place: Path
) -> None:
    client.call(
        "POST", "/collections/aliases", {"actions": [{"create_alias": {"alias_name": "a", "collection_name": NAME}}]}
    )
    said = run("drop", NAME, "t", "--drop-aliases", "--yes")
    assert said.exit_code == 0, said.output
    assert f"{NAME} is dropped" in said.output
    assert NAME not in client.collections()
    saved = Path(snapshot_of(said))
    assert saved.parent == place / ".plinth" / "t" / "data" / "dropped"
    assert saved.stat().st_mode & 0o777 == 0o700

    # It can be done twice: nothing is taken away from the snapshot.
    for aliases in ([NAME], []):
        said = run("restore", str(saved), "t")
        assert said.exit_code == 0, said.output
        described = client.collection(NAME) or {}
        assert described["points_count"] == 300
        assert set(described["payload_schema"]) == {"org"}
        assert (NAME in client.aliases().values()) is bool(aliases)
        with pytest.raises(UserError, match="is there already"):
            run("restore", str(saved), "t")
        client.call("DELETE", f"/collections/{NAME}")
        client.call(
            "POST",
            "/collections/aliases",
            {"actions": [{"create_alias": {"alias_name": "a", "collection_name": MANAGED}}]},
        )
    client.call("POST", "/collections/aliases", {"actions": [{"delete_alias": {"alias_name": "a"}}]})


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("nothing_v1", "t", "--yes"), f"no collection 'nothing_v1'; there are .*{NAME}", 2),
        (("an_alias", "t", "--yes"), f"'an_alias' is an alias of {NAME}", 2),
        ((NAME, "t", "--yes"), "read by its alias an_alias; .* or add --drop-aliases", 1),
        ((NAME, "t", "--drop-aliases"), f"Drop {NAME} with its 300 points from 't'.*add --yes", 2),
    ],
)
def test_what_is_not_meant_is_refused_and_nothing_is_dropped(
    run: Run, client: Qdrant, place: Path, arguments: tuple[str, ...], words: str, code: int
) -> None:
    point = {"create_alias": {"alias_name": "an_alias", "collection_name": NAME}}
    client.call("POST", "/collections/aliases", {"actions": [point]})
    with pytest.raises(UserError, match=words) as refused:
        run("drop", *arguments)
    assert refused.value.exit_code == code
    assert client.call("POST", f"/collections/{NAME}/points/count", {"exact": True})["count"] == 300
    assert not (place / ".plinth" / "t" / "data" / "dropped").exists()


@pytest.mark.requirement("S2-07")
def test_a_collection_is_made_anew_after_a_snapshot_and_aliases_lead_to_it_again(run: Run, client: Qdrant) -> None:
    point = {"create_alias": {"alias_name": "an_alias", "collection_name": MANAGED}}
    client.call("POST", "/collections/aliases", {"actions": [point]})
    with pytest.raises(UserError, match=f"Drop {MANAGED} with its 300 points from 't', after a snapshot.*add --yes"):
        run("apply", "t", "--recreate", MANAGED)
    assert client.collection(MANAGED)["points_count"] == 300  # type: ignore[index]

    said = run("apply", "t", "--recreate", MANAGED, "--yes")
    assert said.exit_code == 0, said.output
    described = client.collection(MANAGED) or {}
    assert described["points_count"] == 0
    assert described["config"]["params"]["vectors"]["size"] == 768
    assert client.aliases()["an_alias"] == client.aliases()["trades"] == MANAGED
    assert client.call("POST", f"/collections/{NAME}/points/count", {"exact": True})["count"] == 300

    saved = "".join(said.output.split(f"The snapshot of {MANAGED} is ")[1].split("; once")[0].split())
    client.call("DELETE", f"/collections/{MANAGED}")
    assert run("restore", saved, "t").exit_code == 0
    assert client.collection(MANAGED)["points_count"] == 300  # type: ignore[index]
    for other in set(client.collections()) - {NAME, MANAGED}:
        client.call("DELETE", f"/collections/{other}")


def test_only_what_a_file_declares_is_made_anew(run: Run, client: Qdrant) -> None:
    with pytest.raises(UserError, match=f"No file declares a collection '{NAME}'; there are .*{MANAGED}"):
        run("apply", "t", "--recreate", NAME, "--yes")
    assert client.collection(NAME)["points_count"] == 300  # type: ignore[index]


def test_a_collection_that_a_file_declares_is_said_to_come_back_empty(run: Run, client: Qdrant) -> None:
    said = run("drop", MANAGED, "t", "--yes", "--no-snapshot")
    assert "the next `plinth up t` makes it again, empty" in " ".join(said.output.split())
    assert MANAGED not in client.collections()
    assert "Its snapshot is" not in said.output


def test_without_a_snapshot_nothing_is_dropped(
    run: Run, client: Qdrant, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise QdrantError("no space left")

    monkeypatch.setattr("plinth.backup.stores.qdrant.node_client.Node.take", fail)
    with pytest.raises(UserError, match=f"{NAME} was not dropped, .*no space left"):
        run("drop", NAME, "t", "--yes")
    assert NAME in client.collections()
    assert list((place / ".plinth" / "t" / "data" / "dropped").glob("*")) == []


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"part": 1, "pieces": []}'])
def test_what_is_no_snapshot_is_refused(run: Run, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "collection.json").write_bytes(damage)
    with pytest.raises(UserError, match="no directory that `plinth collections drop` has written"):
        run("restore", str(tmp_path), "t")


@pytest.mark.skipif(real_qdrant() is None, reason="needs a qdrant binary on PATH")
def test_each_shard_of_three_nodes_is_in_the_snapshot(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path / "c", 3)
    try:
        run, first = runner(place, cluster.servers, monkeypatch), cluster.nodes[0]
        fill(first, NAME, shard_number=3)
        said = run("drop", NAME, "t", "--yes")
        assert first.collections() == []
        assert run("restore", snapshot_of(said), "t").exit_code == 0
        assert [node.count(NAME) for node in cluster.nodes] == [300, 300, 300]

        alone = runner(place, cluster.servers[:1], monkeypatch)
        with pytest.raises(UserError, match=r"was not dropped.*no Active replica on a node that answers"):
            alone("drop", NAME, "t", "--yes")
        assert first.collections() == [NAME]
    finally:
        cluster.stop()
