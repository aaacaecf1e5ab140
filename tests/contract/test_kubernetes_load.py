"""`plinth load` on the kubernetes target: a Job whose lines are shown and whose report and verdict come home."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from plinth.cli import app, stack
from plinth.cli import load as command
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.kubernetes import jobs as jobs_module
from plinth.load.remote_run import Job, refusal_lines, report_lines
from plinth.paths import home
from plinth.settings.loader import load_settings
from tests.conftest import KEY
from tests.kubernetes.api import Api, serving
from tests.kubernetes.jobs import JobController, Script
from tests.kubernetes.store import Store
from tests.project import Environment
from tests.unit.test_load_report import report

IMAGE = "registry.test/plinth:0.1.0"
OUTPUTS = {"qdrant": {"url": "http://127.0.0.1:1", "grpc_url": "http://127.0.0.1:1", "api_key": KEY}}


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobController]:
    """The Jobs of the cluster that an environment `t` is on."""
    kubeconfig = str(tmp_path / "kubeconfig")
    settings = {"kubeconfig": kubeconfig, "namespace": "vectors", "images": {"plinth": IMAGE}}
    (tmp_path / "p").mkdir()
    project = Environment(tmp_path / "p", {"plinth:target": "kubernetes", "plinth:kubernetes": settings})
    opened = Stack("t", project.root, home(project.root, "t"), load_settings(project.root, "t"))
    monkeypatch.setattr(command, "stack_of", lambda _env: opened)
    monkeypatch.setattr(command, "outputs_of", lambda _stack: OUTPUTS)
    monkeypatch.setattr(jobs_module, "INTERVAL_S", 0.02)
    store = Store()
    with serving(Api(store), Path(kubeconfig)):
        yield store.jobs
    assert store.jobs.pods == {}
    assert KEY not in json.dumps([pod.manifest for pod in store.jobs.history])


def load(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["load", "t", *arguments])


@pytest.mark.requirement("S2-02")
@pytest.mark.parametrize(("latency", "code", "verdict"), [(3.0, 0, "pass"), (400.0, 1, "fail")])
def test_the_verdict_and_the_reports_of_a_job_come_home(
    jobs: JobController, latency: float, code: int, verdict: str, tmp_path: Path
) -> None:
    made = report(latency=lambda _: latency)
    lines = ("Loaded 8000 points", *report_lines(made))
    jobs.script_of = lambda _: Script(lines, exit_code=code, waits="Pulling", cuts=(1, 2))
    files = {option: tmp_path / option for option in ("json", "html", "junit")}
    said = load("--workers", "3", *(word for option, path in files.items() for word in (f"--{option}-out", str(path))))
    assert said.exit_code == code, said.output
    assert said.output.count("  Loaded 8000 points") == 1
    assert "waiting for the Job load-" in said.output
    assert "plinth-load " not in said.output
    assert f"Verdict: {verdict}" in said.output
    assert json.loads(files["json"].read_text()) == made.to_json()
    assert verdict in files["html"].read_text()
    assert "testsuite" in files["junit"].read_text()
    (job,) = jobs.history
    assert job.command == ["python3", "-m", "plinth.load"]
    (container,) = job.manifest["spec"]["template"]["spec"]["containers"]
    asked = Job.model_validate_json(container["env"][0]["value"])
    assert container["image"] == IMAGE
    assert (asked.url, asked.grpc) == ("http://qdrant.vectors.svc:6333", "qdrant.vectors.svc:6334")
    assert asked.slo.profile("smoke").processes == 3


def test_json_is_alone_on_standard_output(jobs: JobController) -> None:
    made = report()
    jobs.script_of = lambda _: Script(("Loaded 8000 points", *report_lines(made)))
    said = load("--json")
    assert json.loads(said.stdout) == made.to_json()
    assert "Loaded 8000 points" in said.stderr


ENDINGS: dict[str, tuple[Script, str]] = {
    "out of memory": (Script(("working", "Killed"), exit_code=137), "it was killed, as one is that takes more"),
    "an older image": (Script(("No module named plinth.load",), exit_code=1), "It printed last: No module named"),
    "half a report": (Script(tuple(report_lines(report("stress")))[:-1], exit_code=0), "ended without a report"),
    "refused": (
        Script(tuple(refusal_lines(UserError("No verdict: nothing answers.", exit_code=3)))),
        "nothing answers",
    ),
    "gone": (Script((), vanishes=True), "is gone before it ended"),
}


@pytest.mark.parametrize(("script", "words"), ENDINGS.values(), ids=ENDINGS)
def test_a_run_without_a_report_is_no_verdict_and_no_failed_up(
    jobs: JobController, script: Script, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.script_of = lambda _: script
    said = load()
    assert isinstance(said.exception, UserError)
    assert said.exception.exit_code == 3
    assert words in str(said.exception)
    # What was deployed is not at fault: `up` warns, and exits 0.
    verdict = stack._gate(command.stack_of("t"), dict(OUTPUTS))
    assert (verdict.word, verdict.exit_code) == ("void", 3)
    stack._conclude("t", verdict)
    assert "Warning: 't' is deployed and ready, and the load gate came to no verdict" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_job_that_may_not_be_made_is_no_verdict(jobs: JobController, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise UserError("The cluster does not allow making the Job.", exit_code=1)

    monkeypatch.setattr(jobs_module.Jobs, "run", refuse)
    said = load()
    assert isinstance(said.exception, UserError)
    assert (said.exception.exit_code, str(said.exception)) == (3, "The cluster does not allow making the Job.")


@pytest.mark.parametrize(
    ("then", "code", "words"),
    [
        (lambda made: made, 0, "No operation is slower than in the baseline."),
        (lambda made: made | {"machine": "another"}, 3, "the baseline is of another machine ('another', this run 'm')"),
    ],
)
def test_a_baseline_of_another_node_is_no_verdict(
    jobs: JobController, then: Callable[[Any], Any], code: int, words: str, tmp_path: Path, monkeypatch: Any
) -> None:
    made = report()
    jobs.script_of = lambda _: Script(tuple(report_lines(made)))
    monkeypatch.setattr(command, "dataset", lambda *_: type("Data", (), {"described": made.data}))
    path = tmp_path / "then.json"
    path.write_text(json.dumps(then(made.to_json())))
    said = load("--baseline", str(path))
    assert said.exit_code == code, said.output
    assert words in " ".join(said.output.split())
