"""Backups and what watches them on the kubernetes target, on the real engine with a cluster that remembers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from plinth.home import home
from tests.containers.wire import in_the_clear
from tests.kubernetes.story import NAMESPACE, OFF, Story, page, story_of
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


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root, kubeconfig = tmp_path_factory.mktemp("backups"), tmp_path_factory.mktemp("kube") / "config"
    with page() as port, story_of(root, kubeconfig, 1, SETTINGS, dict.fromkeys(PAGES, port)) as story:
        yield story


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


def test_what_the_pods_do_names_kubectl(story: Story) -> None:
    for command in ("run", "check", "drill"):
        said = " ".join(story.environment.plinth("backup", command, "t", expect=2).split())
        assert f"kubectl -n {NAMESPACE} create job backup-{command}-now --from=cronjob/backup-{command}" in said
    assert "sed 's/- run$/- list/'" in " ".join(story.environment.plinth("backup", "list", "t", expect=2).split())


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
