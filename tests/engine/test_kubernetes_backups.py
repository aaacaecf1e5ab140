"""Backups and what watches them on the kubernetes target, on the real engine with a cluster that remembers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from plinth.exporter.metrics import Reading, families
from plinth.paths import home
from plinth.status_files.backup_runs import Run, State
from tests.answers import Answers, close, serve
from tests.containers.wire import in_the_clear
from tests.kubernetes.jobs import Script
from tests.kubernetes.story import OFF, Story, story_of
from tests.project import needs_pulumi

pytestmark = [
    pytest.mark.engine,
    needs_pulumi,
]
SETTINGS: dict[str, Any] = {
    "plinth:kubernetes": {"images": {"plinth": "registry.test/plinth:0.1.0"}},
    "plinth:backup": {"disk_gib": 20},
    "plinth:monitoring": {"grafana": OFF},
}
PAGES = {
    ("monitoring-prometheus-0", 9090),
    ("monitoring-alertmanager-0", 9093),
    ("monitoring-plinth-exporter-x", 9188),
}


class Told(Answers):
    """Every page of the pods: an exporter's."""

    text = ""

    def do_GET(self) -> None:
        body = type(self).text.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def told() -> type[Told]:
    return Told


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root, kubeconfig = tmp_path_factory.mktemp("backups"), tmp_path_factory.mktemp("kube") / "config"
    server = serve(Told)
    ports = dict.fromkeys(PAGES, server.server_address[1])
    with story_of(root, kubeconfig, 1, SETTINGS, ports) as story:
        yield story
    close(server)


@pytest.mark.requirement("S1-06")
def test_backups_come_behind_the_stores_and_before_their_watcher(story: Story) -> None:
    story.up()
    made = [(kind, name) for verb, kind, name in story.store.calls if verb == "create"]
    claims = [("PersistentVolumeClaim", f"backup-{name}") for name in ("work", "state", "repository")]
    jobs = [("CronJob", f"backup-{name}") for name in ("run", "check", "drill")]
    assert {*claims, *jobs, ("Secret", "backup-keys")} <= set(made)
    first = made.index(("StatefulSet", "qdrant"))
    assert all(made.index(each) > first for each in (*claims, *jobs))
    watcher = made.index(("Deployment", "monitoring-plinth-exporter"))
    assert all(made.index(each) < watcher for each in (*claims, *jobs))
    assert story.environment.json("status", "t", "--no-cache")["deps"]["plinth_exporter"]["ok"] is True


@pytest.mark.requirement("S1-14")
def test_the_repositorys_password_is_in_its_secret_alone(story: Story) -> None:
    password = json.loads((home(story.environment.root, "t").data / "secrets.json").read_text())["backup_password"]
    assert story.store.of("Secret")["backup-keys"]["stringData"] == {"restic-password": password}
    assert password not in json.dumps(story.provider.charts)
    assert password not in story.environment.states()
    for kind, inputs in story.provider.requests:
        assert password not in json.dumps(in_the_clear(inputs)), kind


COMMANDS: list[tuple[tuple[str, ...], list[str]]] = [
    (("run",), ["--progress=plain", "run"]),
    (("run", "--json"), ["--json", "--progress=none", "run"]),
    (("list",), ["--progress=plain", "list"]),
    (("verify", "--snapshot", "abc"), ["--progress=plain", "--snapshot=abc", "verify"]),
    (("verify", "--all"), ["--progress=plain", "verify", "--all"]),
    (("check", "--all"), ["--progress=plain", "check", "--all"]),
    (("drill",), ["--progress=plain", "drill"]),
    (("prune",), ["--progress=plain", "prune"]),
    (
        ("restore", "--collection", "trades", "--replace", "--yes"),
        ["--progress=plain", "--into=t", "restore", "--collection=trades", "--replace", "--yes"],
    ),
]


@pytest.mark.requirement("S1-06")
def test_backup_commands_run_in_a_job_whose_lines_and_exit_status_are_theirs(story: Story) -> None:
    jobs = story.store.jobs
    for number, ((command, *options), words) in enumerate(COMMANDS):
        code = number % 3
        document = ("{", ' "points": 7', "}")
        lines = ("a warning", *document) if "--json" in options else ("  taking qdrant", f"Set {number} is complete")
        jobs.script_of = lambda _, lines=lines, code=code: Script(lines, exit_code=code, waits="Pulling", cuts=(1,))  # type: ignore[misc]
        said = story.environment.plinth("backup", command, "t", *options, expect=code)
        (job,) = jobs.history
        assert job.command == ["python3", "-m", "plinth.backup", "--config", "/etc/plinth/backup/config.yaml", *words]
        assert all(said.count(line) == 1 for line in lines), said
        assert "waiting for the Job backup-" in said
        assert f"plinth.{command}" not in said
        assert jobs.pods == {}
        jobs.history.clear()
    assert "kubectl" not in "".join(story.environment.printed[-len(COMMANDS) :])


def test_json_of_a_job_is_alone_on_standard_output(story: Story) -> None:
    story.store.jobs.script_of = lambda _: Script(("WARNING no Landlock", "[", ' {"snapshot": "a"}', "]"))
    done = subprocess.run(
        [sys.executable, "-c", "from plinth.cli import main; main()", "backup", "list", "t", "--json"],
        cwd=story.environment.root,
        env=story.environment.surroundings(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [{"snapshot": "a"}]
    assert "WARNING no Landlock" in done.stderr


def test_another_environment_is_restored_into_from_here_and_needs_a_repository_in_reach(story: Story) -> None:
    story.store.jobs.history.clear()
    said = story.environment.plinth("backup", "restore", "t", "--to", "dr", expect=2)
    assert "set plinth:backup.repository to one that it reaches" in " ".join(said.split())
    assert story.store.jobs.history == []


def state_page(**ages: float) -> str:
    runs = {
        kind: Run(attempted_at=time.time() - age, succeeded_at=time.time() - age, result="ok", duration_s=1)
        for kind, age in ages.items()
    }
    reading = Reading(at=1.0, peers=1, memory_limit_bytes=1, state=State.model_validate(runs))
    registry = CollectorRegistry()
    registry.collect = lambda: families(reading)  # type: ignore[method-assign]
    return generate_latest(registry).decode()


@pytest.mark.requirement("S1-06")
def test_status_tells_what_the_exporter_knows_of_backups_and_is_not_ready_without_a_young_one(
    story: Story, told: type[Told]
) -> None:
    told.text = state_page(backup=3600.0, drill=86400.0)
    status = story.environment.json("status", "t", "--no-cache")
    assert status["ready"] is True
    assert 3600 <= status["backups"]["backup"]["age_s"] < 7200
    assert (status["backups"]["backup"]["result"], status["backups"]["check"]) == ("ok", None)
    told.text = state_page(backup=3 * 86400.0)
    status = story.environment.json("status", "t", "--no-cache", expect=1)
    assert "the last good backup is 3.0 d old" in status["deps"]["backup"]["detail"]
    assert "3.0 d ago" in story.environment.plinth("status", "t", expect=1)
    told.text = state_page()
    assert "never ran" in story.environment.plinth("status", "t")
    cronjob = story.store.of("CronJob")["backup-run"]
    cronjob["spec"]["suspend"] = True
    assert "is suspended" in story.environment.plinth("status", "t", expect=1)
    del cronjob["spec"]["suspend"]


def test_a_claim_of_the_backups_grows_in_its_own_step_and_is_never_deleted(story: Story) -> None:
    before = len(story.store.calls)
    story.set("backup", disk_gib=30)
    said = story.environment.plinth("preview", "t")
    assert "would expand the claim backup-repository from 20 GiB to 30 GiB" in said
    assert story.since(before) == []
    story.up()
    calls = story.since(before)
    assert calls[:2] == [("expand", "PersistentVolumeClaim", f"backup-{name}") for name in ("repository", "work")]
    assert not story.since(before, "delete", "restart")
    sizes = {
        name: claim["spec"]["resources"]["requests"]["storage"]
        for name, claim in story.store.of("PersistentVolumeClaim").items()
        if name.startswith("backup-")
    }
    assert sizes == {"backup-work": "30Gi", "backup-repository": "30Gi", "backup-state": "16Mi"}
    story.set("backup", disk_gib=10)
    assert "volumes only grow" in " ".join(story.up(expect=1).split())
    story.set("backup", disk_gib=30)


def test_a_claim_that_waits_for_its_first_pod_is_made_again_with_another_size(story: Story) -> None:
    story.store.unbound = {"backup-repository", "backup-work"}
    before = len(story.store.calls)
    story.set("backup", disk_gib=35)
    said = story.environment.plinth("preview", "t")
    assert "would make the claim backup-repository, which has no volume yet, with 35 GiB and not 30 GiB" in said
    assert story.since(before) == []
    story.up()
    for verb in ("delete", "create"):
        made = {name for _, kind, name in story.since(before, verb) if kind == "PersistentVolumeClaim"}
        assert made == story.store.unbound
    story.store.unbound = set()
    assert "Nothing would change" in story.environment.plinth("preview", "t")


def test_backups_turned_off_leave_their_claims(story: Story) -> None:
    before = len(story.store.calls)
    story.set("backup", enabled=False)
    story.up()
    gone = {(kind, name) for _, kind, name in story.since(before, "delete")}
    assert gone == {("Secret", "backup-keys"), *(("CronJob", f"backup-{name}") for name in ("run", "check", "drill"))}
    said = " ".join(story.environment.plinth("backup", "list", "t", expect=2).split())
    assert "has no backups; set plinth:backup.enabled to true" in said
    story.set("backup", enabled=True)
    story.up()
    assert "CronJob" in {kind for _, kind, _ in story.since(before, "create")}


def test_an_image_that_no_registry_has_is_said_by_up_and_by_backup(story: Story) -> None:
    story.set("kubernetes", images={})
    said = " ".join(story.up().split())
    assert "plinth-backup is left out: no registry has its image localhost/plinth:" in said
    refused = " ".join(story.environment.plinth("backup", "list", "t", expect=2).split())
    assert "'t' has no backups: no registry has its image" in refused


def test_down_leaves_the_claims_of_the_backups(story: Story) -> None:
    story.set("kubernetes", images={"plinth": "registry.test/plinth:0.1.0"})
    story.up()
    story.store.lingers = 3
    said = " ".join(story.environment.plinth("down", "t", "--yes").split())
    # Down is what has ended, and not what was told to.
    assert "pod(s) to end: " in said
    assert not story.store.of("Pod")
    assert {f"backup-{name}" for name in ("work", "state", "repository")} <= set(
        story.store.of("PersistentVolumeClaim")
    )
    assert not story.store.of("CronJob")
