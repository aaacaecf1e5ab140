"""Logs on a live stack: what services print and Qdrant's audit log reach Loki, by few labels, and wait for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from plinth.monitoring.dashboards.builder import expressions
from tests.conftest import ROOT, free_port, real_qdrant
from tests.engine.project import Project
from tests.loki import LABELS, MARKED, Loki, ask_qdrant, fail_in_postgres
from tests.project import needs_pulumi
from tests.prometheus import values
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.engine,
    needs_pulumi,
    pytest.mark.skipif(
        not (os.environ.get("PLINTH_LOKI") or shutil.which("loki")),
        reason="no loki binary: set PLINTH_LOKI or put it on PATH",
    ),
    pytest.mark.skipif(
        not (os.environ.get("PLINTH_FLUENT_BIT") or shutil.which("fluent-bit")),
        reason="no fluent-bit binary: set PLINTH_FLUENT_BIT or put it on PATH",
    ),
]
needs_audit = pytest.mark.skipif(
    real_qdrant() is None,
    reason="no qdrant binary: set PLINTH_QDRANT or put it on PATH; the embedded engine audits nothing",
)


class Live(Loki):
    """A stack that keeps its logs."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.outputs = project.outputs()
        super().__init__(self.outputs["loki"])

    def fail_in_postgres(self, word: str) -> None:
        fail_in_postgres(self.outputs["postgres"], word)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    # Not pytest's own directory, which it closes to others: Postgres runs as another user, who must be able to enter.
    with tempfile.TemporaryDirectory(prefix="plinth-logged-") as directory:
        Path(directory).chmod(0o711)
        project = Project(Path(directory), "server" if real_qdrant() else "embedded")
        project.settings["plinth:monitoring"]["prometheus"]["scrape_interval_sec"] = 5
        project.settings["plinth:monitoring"]["loki"] = {
            "enabled": True,
            "port": free_port(),
            "agent_port": free_port(),
        }
        project.save()
        try:
            project.plinth("up", "t", "--no-verify")
            found = Live(project)
            ask_qdrant(found.outputs["qdrant"])
            yield found
        finally:
            project.plinth("down", "t", "--yes")


def test_what_services_print_is_there_by_service_and_level(live: Live) -> None:
    live.fail_in_postgres("a_word_of_its_own")
    assert "a_word_of_its_own" in live.wait_for('{service="postgres",level="error"}')[0]
    live.wait_for('{service="qdrant",kind="printed",level="info"}')
    services = set(live.get("label/service/values"))
    assert {"qdrant", "postgres", "redis", "supervisord"} <= services
    # Their own words would go in circles.
    assert not {"loki", "fluent-bit"} & services


def test_lines_are_as_they_were_printed_and_labels_are_few(live: Live) -> None:
    printed = live.wait_for('{service="redis"}')
    log = live.project.root / ".plinth" / "t" / "run" / "logs" / "redis.log"
    assert set(printed) <= set(log.read_text().splitlines())
    assert set(live.get("labels")) == LABELS
    assert live.get("label/stack/values") == ["t"]
    assert set(live.get("label/level/values")) <= {"debug", "info", "warn", "error", "fatal", "unknown"}


@pytest.mark.requirement("S4-08")
@pytest.mark.qdrant
@needs_audit
def test_who_asked_for_what_is_there_and_no_vector_is(live: Live) -> None:
    asked = '{kind="audited",service="qdrant"} | json | collection="embeddings"'
    live.wait_for(f'{asked} | method="upsert_points" | result="ok"')
    assert live.wait_for('{kind="audited",level="warn"} | json | collection="embeddings" | result="denied"')
    assert live.wait_for(f'{asked} | method!="upsert_points" | result="ok"')
    # Time enough for whatever else would come.
    live.fail_in_postgres("a_word_that_comes_last")
    live.wait_for('{service="postgres"} |= "a_word_that_comes_last"')
    assert not live.lines(f'{{stack="t"}} |= "{MARKED}"')


@pytest.mark.qdrant
@needs_audit
def test_no_panel_of_logs_is_empty(live: Live) -> None:
    live.fail_in_postgres("one_more")
    live.wait_for('{service="postgres",level="error"}')
    board = (ROOT / "monitoring" / "grafana" / "dashboards" / "logs.json").read_text()
    asked = expressions(board, "loki")
    assert len(asked) >= 7
    for title, expression in asked:
        filled = expression.replace("$__auto", "5m").replace("$service", ".*").replace("$level", ".*")
        assert live.get("query_range", query=filled)["result"], title
    for title, expression in expressions(board):
        if "plinth_" not in expression:
            # A rate wants two scrapes.
            wait_for(partial(values, live.outputs["prometheus"], expression), title)


def test_lines_wait_for_loki(live: Live) -> None:
    supervised = live.project.supervised()
    os.kill(supervised["loki"].pid, signal.SIGKILL)
    live.fail_in_postgres("while_it_was_gone")
    live.project.wait_ready()
    live.wait_for('{service="postgres"} |= "while_it_was_gone"')


def test_status_and_outputs_show_both(live: Live) -> None:
    status = json.loads(live.project.plinth("status", "t", "--json", PROBE_TIMEOUT_MS="3000"))
    assert status["deps"]["loki"]["ok"] is True
    assert status["deps"]["fluent_bit"]["ok"] is True
    assert live.outputs["loki"]["url"].startswith("https://127.0.0.1:")
