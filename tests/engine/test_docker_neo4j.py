"""Neo4j and what takes its backup as real containers: up, in, backed up by the container beside it, verified."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from neo4j import GraphDatabase

from plinth.programs.executables import find
from plinth.programs.neo4j import PROGRAM
from tests.conftest import free_port
from tests.containers import built, own
from tests.containers.applied import needs_containers, provided
from tests.containers.engine import Containers
from tests.containers.stack import Stack, settings
from tests.project import needs_pulumi
from tests.slo import SHORT, unhurried

pytestmark = [
    pytest.mark.engine,
    pytest.mark.docker,
    needs_pulumi,
    needs_containers,
    pytest.mark.skipif(find(PROGRAM) is None, reason="no neo4j binary: set PLINTH_NEO4J or put it on PATH"),
    pytest.mark.skipif(shutil.which("java") is None, reason="no java on this machine"),
]
OFF = {"enabled": False}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    client, env = docker.from_env(), f"graph{secrets.token_hex(3)}"
    plinth = f"localhost/plinth-tests/plinth:{env}"
    images = built.build(client) | built.build_neo4j(client) | {"python": own.base(client), "plinth": plinth}
    wanted = settings(
        images,
        postgres=OFF,
        redis=OFF,
        neo4j={"enabled": True, "http_port": free_port(), "bolt_port": free_port()},
        monitoring=dict.fromkeys(("prometheus", "alertmanager", "grafana", "exporters"), OFF),
        collections={"only": ["trades"]},
    )
    wheels = tmp_path_factory.mktemp("wheels")
    own.fill_wheels(wheels)
    with provided(client) as variables, tempfile.TemporaryDirectory(prefix="plinth-docker-") as directory:
        made = Stack(Path(directory), wanted, env, **variables)
        made.containers = Containers(client, env)
        try:
            # No load is sent here, so nothing need be embedded for the image.
            (made.root / "load" / "slo.yaml").write_text(unhurried({"smoke": SHORT}))
            made.plinth("images", "build", env, "--wheels", str(wheels))
            made.up()
            yield made
        finally:
            made.containers.remove()
            if client.images.list(plinth):
                client.images.remove(plinth)


@pytest.mark.requirement("S1-02")
def test_it_is_healthy_as_locked_as_the_others_and_keeps_its_data_over_a_restart(stack: Stack) -> None:
    assert set(stack.containers.running()) == {"qdrant-0", "neo4j", "plinth-backup"}
    stack.containers.wait_healthy()
    assert stack.json("status", stack.env)["deps"]["neo4j"]["ok"] is True
    about = stack.containers.inspected()["neo4j"]
    assert about["Config"]["User"] == "7474:7474"
    assert about["HostConfig"]["ReadonlyRootfs"] is True
    assert stack.outputs()["neo4j"]["password"] not in json.dumps(about)
    ask(stack, "CREATE (:Kept {answer: 42})-[:OF]->(:Kept {answer: 43})")
    stack.containers.running()["neo4j"].restart(timeout=120)
    stack.wait_ready(180)
    assert ask(stack, "MATCH (a:Kept)-[:OF]->(b) RETURN a.answer, b.answer") == [[42, 43]]
    assert "nothing to change" in stack.up()


@pytest.mark.requirement("S1-06")
def test_the_container_of_the_backups_takes_it_over_bolt(stack: Stack) -> None:
    backup(stack, "run")
    (taken,) = backup(stack, "list")
    assert (taken["complete"], taken["stores"]["neo4j"], taken["nodes"]) == (True, "ok", 2)
    backup(stack, "verify")


def ask(stack: Stack, statement: str) -> list[Any]:
    where = stack.outputs()["neo4j"]
    with GraphDatabase.driver(where["bolt_url"], auth=(where["user"], where["password"])) as driver:
        return [list(row.values()) for row in driver.execute_query(statement).records]


def backup(stack: Stack, command: str) -> Any:
    """What the container of the backups answers."""
    asked = ["python3", "-m", "plinth.backup", "--config", "/etc/plinth/config.yaml", "--json", command]
    done = stack.containers.running()["plinth-backup"].exec_run(asked, demux=True)
    assert done.exit_code == 0, (done.output[0] or b"").decode() + done.output[1].decode()
    return json.loads(done.output[0])
