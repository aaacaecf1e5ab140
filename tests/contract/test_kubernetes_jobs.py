"""A command in a Job: what is sent to the API, what is read of its pod, how it ends, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from plinth.cli.execution import json_part
from plinth.errors import UserError
from plinth.kubernetes import jobs as jobs_module
from plinth.kubernetes.client import Cluster
from plinth.kubernetes.jobs import Jobs, job_of
from tests.conftest import ROOT
from tests.kubernetes.api import Api, serving
from tests.kubernetes.jobs import Script
from tests.kubernetes.provider import job_pod
from tests.kubernetes.store import Store

NAMESPACE = "vectors"
CRONJOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "backup-run", "namespace": NAMESPACE},
    "spec": {
        "schedule": "0 3 * * *",
        "jobTemplate": {"spec": {"backoffLimit": 1, "activeDeadlineSeconds": 60, "template": job_pod("run")}},
    },
}


@contextmanager
def cluster_with(script: Script, directory: Path) -> Iterator[tuple[Store, Jobs]]:
    store = Store()
    store.create(CRONJOB)
    store.jobs.script_of = lambda command: script
    with serving(Api(store), directory / "kubeconfig"):
        yield store, Jobs(Cluster(str(directory / "kubeconfig"), None, NAMESPACE))


def run(jobs: Jobs, *command: str) -> tuple[int, list[str], list[str]]:
    cronjob = jobs.cronjob("backup-run")
    assert cronjob is not None
    lines: list[str] = []
    progress: list[str] = []
    code = jobs.run(job_of(cronjob, "by-hand", command), lambda line, _: lines.append(line), progress.append)
    return code, lines, progress


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "INTERVAL_S", 0.02)


LINES = ("taking qdrant", "taking postgres", "done")


@pytest.mark.parametrize(
    ("script", "code", "progress"),
    [
        (Script(LINES), 0, ""),
        (Script(LINES, exit_code=1), 1, ""),
        (Script(LINES, exit_code=2), 2, ""),
        (Script(LINES, exit_code=137), 137, ""),
        (Script(LINES, cuts=(1,)), 0, ""),
        (Script(LINES, cuts=(1, 2, 3), exit_code=1), 1, ""),
        (Script(LINES, waits="ImagePullBackOff"), 0, "backup: ImagePullBackOff as told"),
        (Script(LINES, waits="ContainerCreating", cuts=(2,)), 0, "backup: ContainerCreating as told"),
        (Script((), exit_code=1), 1, ""),
        (Script(LINES, cuts=(1,), blinks=3, exit_code=1), 1, ""),
    ],
)
def test_a_job_ends_as_its_command_does_and_each_line_comes_once(
    script: Script, code: int, progress: str, tmp_path: Path
) -> None:
    with cluster_with(script, tmp_path) as (store, jobs):
        answer, lines, told = run(jobs, "verify")
        assert (answer, tuple(lines)) == (code, script.lines)
        assert any(progress in line for line in told) or not progress
        assert store.jobs.history[0].command == ["verify"]
        assert store.jobs.history[0].removed.is_set()


def test_a_job_is_made_of_the_cronjobs_template_with_another_command_and_is_tried_once() -> None:
    job = job_of(CRONJOB, "backup-drill-by-hand", ["python3", "drill"])
    assert job["metadata"]["name"].startswith("backup-drill-by-hand-")
    assert job["metadata"]["annotations"] == {"cronjob.kubernetes.io/instantiate": "manual"}
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 60)
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"] == [{"name": "backup", "image": "x", "command": ["python3", "drill"]}]
    assert job_of(CRONJOB, "x", [])["metadata"]["name"] != job_of(CRONJOB, "x", [])["metadata"]["name"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda store: store.denied.add("get pods/log"), "does not allow reading the log of the pod"),
        (lambda store: setattr(store.jobs, "script_of", lambda _: Script(vanishes=True)), "is gone before it ended"),
        (lambda store: setattr(store.jobs, "script_of", lambda _: Script(waits="x" * 9)), "did not start in"),
    ],
)
def test_a_job_that_cannot_be_followed_is_a_sentence_and_is_removed(
    prepare: Callable[[Store], None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "START_DEADLINE_S", -1.0 if "start" in message else 60.0)
    with cluster_with(Script(LINES), tmp_path) as (store, jobs):
        prepare(store)
        with pytest.raises(UserError, match=message):
            run(jobs, "verify")
        assert store.jobs.history[0].removed.is_set()


PROGRAM = """
import sys
from plinth.kubernetes.client import Cluster
from plinth.kubernetes.jobs import Jobs, job_of
jobs = Jobs(Cluster(sys.argv[1], None, "vectors"))
job = job_of(jobs.cronjob("backup-run"), "by-hand", ["run"])
sys.exit(jobs.run(job, lambda line, _: print(line, flush=True), lambda line: print(line, flush=True)))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_removes_the_job_and_what_it_says_meanwhile_is_shown(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    with cluster_with(Script(("working",), hangs=True), tmp_path) as (store, _):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "kubeconfig")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        timer = threading.Timer(60, process.kill)
        timer.start()
        try:
            assert process.stdout.readline() == "working\n"
            os.kill(process.pid, number)
            assert process.stdout.read() == "cleaned up\n"
            assert process.wait() == code
        finally:
            timer.cancel()
        assert store.jobs.pods == {}


@pytest.mark.parametrize(
    ("lines", "document"),
    [
        (["{", ' "a": 1', "}"], ["{", ' "a": 1', "}"]),
        (["WARNING no Landlock", "[", ' {"a": 1}', "]", "after"], ["[", ' {"a": 1}', "]"]),
        (["x", "[]"], ["[]"]),
        (["{}", "y"], ["{}"]),
        (["plinth: refused"], []),
        ([], []),
        (["{", "cut off"], ["{", "cut off"]),
    ],
)
def test_a_document_is_found_among_the_lines_of_both_outputs(lines: list[str], document: list[str]) -> None:
    found, others = json_part(lines)
    assert found == document
    assert others == [line for line in lines if line not in document]
