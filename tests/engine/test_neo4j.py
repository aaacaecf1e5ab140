"""A real Neo4j on the local target: up, in, kept over a kill and a down."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.conftest import free_port
from tests.project import Environment, needs_pulumi

BINARY = os.environ.get("PLINTH_NEO4J") or shutil.which("neo4j")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.requirement("S1-02"),
    needs_pulumi,
    pytest.mark.skipif(BINARY is None, reason="no neo4j binary: set PLINTH_NEO4J or put it on PATH"),
]
OFF = {"enabled": False}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    settings: dict[str, Any] = {
        "plinth:target": "local",
        "plinth:qdrant": {"engine": "embedded", "http_port": free_port(), "grpc_port": free_port()},
        "plinth:postgres": OFF,
        "plinth:redis": OFF,
        "plinth:backup": {"port": free_port()} if shutil.which("restic") else OFF,
        "plinth:collections": {"only": []},
        "plinth:neo4j": {"enabled": True, "http_port": free_port(), "bolt_port": free_port()},
        "plinth:monitoring": dict.fromkeys(("prometheus", "alertmanager", "grafana", "exporters"), OFF),
    }
    # A name of its own: data that lies outside of the project is kept under it.
    made = Environment(tmp_path_factory.mktemp(f"neo4j{secrets.token_hex(3)}"), settings)
    yield made
    made.plinth("down", made.env, "--yes")


def ask(project: Environment, statement: str) -> list[Any]:
    return answers(project.outputs()["neo4j"], statement)


def answers(where: Mapping[str, str], statement: str) -> list[Any]:
    answer = httpx.post(
        f"{where['url']}/db/neo4j/tx/commit",
        json={"statements": [{"statement": statement}]},
        auth=(where["user"], where["password"]),
        timeout=30,
    ).json()
    assert answer["errors"] == []
    return [row["row"] for row in answer["results"][0]["data"]]


def test_it_is_up_with_a_generated_password_that_no_argument_shows(project: Environment) -> None:
    project.up()
    status = project.json("status", project.env)
    assert status["deps"]["neo4j"]["ok"] is True
    password = project.outputs()["neo4j"]["password"]
    assert len(password) >= 16
    assert password not in json.dumps([process.cmdline() for process in psutil.process_iter(["cmdline"])])
    assert password not in project.states()
    wanted = project.settings["plinth:neo4j"]
    mine = {wanted["http_port"], wanted["bolt_port"]}
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port in mine]
    assert {c.laddr.port for c in listening} == mine
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
    ask(project, "CREATE (:Kept {answer: 42})")


def test_a_second_up_changes_nothing(project: Environment) -> None:
    assert "nothing to change" in project.up()


def test_the_server_comes_back_after_a_kill_with_its_data(project: Environment) -> None:
    port = project.settings["plinth:neo4j"]["bolt_port"]
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    server = psutil.Process(next(c.pid for c in listening if c.laddr.port == port))
    os.kill(server.pid, signal.SIGKILL)
    psutil.wait_procs([server], timeout=30)
    project.wait_ready(180)
    assert ask(project, "MATCH (kept:Kept) RETURN kept.answer") == [[42]]


@pytest.mark.requirement("S1-06")
@pytest.mark.skipif(shutil.which("restic") is None, reason="restic is not on this machine: run `make bootstrap`")
def test_it_is_backed_up_and_comes_back(project: Environment) -> None:
    project.plinth("backup", "run", project.env)
    (one,) = project.json("backup", "list", project.env)
    assert one["stores"]["neo4j"] == "ok"
    ask(project, "MATCH (kept:Kept) DETACH DELETE kept")
    project.plinth("backup", "restore", project.env, "--store", "neo4j")
    assert ask(project, "MATCH (kept:Kept) RETURN kept.answer, labels(kept), keys(kept)") == [
        [42, ["Kept"], ["answer"]]
    ]


@pytest.fixture
def other(project: Environment) -> Iterator[dict[str, Any]]:
    """The outputs of a second environment of the project, which has a Neo4j of its own and no backups."""
    ports = {"http_port": free_port(), "bolt_port": free_port()}
    settings = project.settings | {
        "plinth:qdrant": {"engine": "embedded", "http_port": free_port(), "grpc_port": free_port()},
        "plinth:backup": OFF,
        "plinth:neo4j": {"enabled": True, **ports},
    }
    (project.root / "stacks" / "Pulumi.dr.yaml").write_text(yaml.safe_dump({"config": settings}))
    project.plinth("up", "dr", "--no-verify")
    try:
        yield project.json("outputs", "dr", "--show-secrets")
    finally:
        project.plinth("down", "dr", "--yes")


@pytest.mark.requirement("S1-06")
@pytest.mark.skipif(shutil.which("restic") is None, reason="restic is not on this machine: run `make bootstrap`")
def test_it_is_restored_into_another_environment_and_never_over_what_lives_there(
    project: Environment, other: dict[str, Any]
) -> None:
    restore = ("backup", "restore", project.env, "--store", "neo4j", "--to", "dr")
    assert "1 nodes" in project.plinth(*restore)
    assert answers(other["neo4j"], "MATCH (kept:Kept) RETURN kept.answer") == [[42]]
    assert other["neo4j"]["password"] != project.outputs()["neo4j"]["password"]
    answers(other["neo4j"], "MATCH (kept:Kept) SET kept.answer = 43")
    assert "Neo4j holds 1 nodes" in project.plinth(*restore, expect=1)
    assert answers(other["neo4j"], "MATCH (kept:Kept) RETURN kept.answer") == [[43]]
    project.plinth(*restore, "--replace", "--yes")
    assert answers(other["neo4j"], "MATCH (kept:Kept) RETURN kept.answer") == [[42]]
    assert ask(project, "MATCH (kept:Kept) RETURN kept.answer") == [[42]]


def test_the_data_is_there_after_a_down(project: Environment) -> None:
    project.plinth("down", project.env, "--yes")
    project.up()
    assert ask(project, "MATCH (kept:Kept) RETURN kept.answer") == [[42]]
