"""Logs on the docker target, with real containers: the engine hands lines over, the agent reads the audit log."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.conftest import free_port, real_qdrant
from tests.containers import built
from tests.containers.applied import needs_containers, provided
from tests.containers.engine import Containers
from tests.containers.stack import Stack, settings
from tests.loki import LABELS, MARKED, Loki, ask_qdrant, fail_in_postgres
from tests.project import needs_pulumi
from tests.prometheus import values
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.engine,
    pytest.mark.docker,
    needs_pulumi,
    needs_containers,
    pytest.mark.skipif(
        not built.collectors(), reason="no loki or no fluent-bit binary: set PLINTH_LOKI and PLINTH_FLUENT_BIT, or PATH"
    ),
]
needs_audit = pytest.mark.skipif(
    real_qdrant() is None,
    reason="no qdrant binary: set PLINTH_QDRANT or put it on PATH; the embedded engine audits nothing",
)
OFF = {"enabled": False}
POSTGRES = '{service="postgres",level="error"}'


class Logged(Stack):
    """A stack that keeps its logs."""

    @cached_property
    def where(self) -> dict[str, Any]:
        return self.outputs()

    @property
    def loki(self) -> Loki:
        return Loki(self.where["loki"])

    def fail(self, word: str) -> None:
        fail_in_postgres(self.where["postgres"], word)


@pytest.fixture(scope="module")
def stack() -> Iterator[Logged]:
    client, env = docker.from_env(), f"logs{secrets.token_hex(3)}"
    ports = {key: free_port() for key in ("port", "agent_port", "intake_port")}
    wanted = settings(
        built.build(client) | built.build_collectors(client),
        monitoring={
            "prometheus": {"port": free_port(), "scrape_interval_sec": 5},
            "loki": {"enabled": True, **ports},
            **dict.fromkeys(("alertmanager", "grafana", "exporters"), OFF),
        },
        backup=OFF,
        collections={"only": ["embeddings"]},
    )
    with provided(client) as plugin, tempfile.TemporaryDirectory(prefix="plinth-") as directory:
        made = Logged(Path(directory), wanted, env, **plugin)
        made.containers = Containers(client, env)
        try:
            made.up()
            ask_qdrant(made.where["qdrant"])
            yield made
        finally:
            made.containers.remove()


@pytest.mark.requirement("S1-05")
def test_both_come_up_locked_like_the_others_and_status_knows_them(stack: Logged) -> None:
    assert set(stack.containers.running()) == {"qdrant-0", "postgres", "redis", "prometheus", "loki", "fluent-bit"}
    stack.containers.wait_healthy()
    known = stack.json("status", stack.env)["deps"]
    assert known["loki"]["ok"] is True
    assert known["fluent_bit"]["ok"] is True
    for name in ("loki", "fluent-bit"):
        about = stack.containers.inspected()[name]
        assert about["HostConfig"]["ReadonlyRootfs"] is True
        assert about["RestartCount"] == 0
        # No socket of the engine, no directory of the host.
        assert {mount["Type"] for mount in about["Mounts"]} == {"volume"}
    assert "nothing to change" in stack.up()


def test_what_containers_print_is_there_by_service_and_level(stack: Logged) -> None:
    stack.fail("a_word_of_its_own")
    assert "a_word_of_its_own" in stack.loki.wait_for(POSTGRES)[0]
    stack.loki.wait_for('{service="redis",level="info"}')
    stack.loki.wait_for('{service="qdrant",kind="printed",node="qdrant-0"}')
    assert set(stack.loki.get("label/service/values")) == {"qdrant", "postgres", "redis", "prometheus"}
    assert set(stack.loki.get("labels")) == LABELS
    assert stack.loki.get("label/stack/values") == [stack.env]


def test_the_engine_keeps_what_it_hands_over_for_docker_logs(stack: Logged) -> None:
    stack.fail("in_both_places")
    stack.loki.wait_for('{service="postgres"} |= "in_both_places"')
    assert b"in_both_places" in stack.containers.running()["postgres"].logs()


@pytest.mark.requirement("S4-08")
@pytest.mark.qdrant
@needs_audit
def test_who_asked_for_what_is_there_and_no_vector_is(stack: Logged) -> None:
    asked = '{kind="audited",service="qdrant",node="qdrant-0"} | json | collection="embeddings"'
    stack.loki.wait_for(f'{asked} | method="upsert_points" | result="ok"')
    stack.loki.wait_for('{kind="audited",level="warn"} | json | collection="embeddings" | result="denied"')
    assert not stack.loki.lines(f'{{stack="{stack.env}"}} |= "{MARKED}"')


def test_prometheus_watches_the_delivery(stack: Logged) -> None:
    prometheus = stack.where["prometheus"]

    wait_for(lambda: values(prometheus, 'up{job=~"loki|fluent-bit"}') == ["1", "1"])
    wait_for(lambda: any(float(value) > 0 for value in values(prometheus, "fluentbit_output_proc_records_total")))
    assert {float(value) for value in values(prometheus, "fluentbit_output_dropped_records_total")} == {0}


@pytest.mark.requirement("S1-14")
def test_no_secret_shows_in_inspect_or_in_what_is_kept(stack: Logged) -> None:
    shown = json.dumps(list(stack.containers.inspected().values()))
    shown += "".join(container.logs().decode(errors="replace") for container in stack.containers.running().values())
    known = stack.secrets()
    assert not [secret for secret in known if secret in shown]
    assert not [secret for secret in known if stack.loki.lines(f'{{stack="{stack.env}"}} |= "{secret}"')]


def test_lines_outlive_a_restart_and_wait_for_who_is_away(stack: Logged) -> None:
    stack.fail("before_it_went")
    stack.loki.wait_for('{service="postgres"} |= "before_it_went"')
    running = stack.containers.running()
    running["loki"].stop(timeout=30)
    stack.fail("while_loki_was_away")
    running["fluent-bit"].restart(timeout=30)
    running["loki"].start()
    stack.wait_ready()
    stack.loki.wait_for('{service="postgres"} |= "while_loki_was_away"')
    assert stack.loki.lines('{service="postgres"} |= "before_it_went"')
    running["fluent-bit"].stop(timeout=30)
    # Several: the engine notices that nobody listens by the first that it sends.
    words = [f"while_the_agent_was_away_{number}" for number in range(3)]
    for word in words:
        stack.fail(word)
    running["fluent-bit"].start()
    stack.wait_ready()
    for word in words:
        stack.loki.wait_for(f'{{service="postgres"}} |= "{word}"')
