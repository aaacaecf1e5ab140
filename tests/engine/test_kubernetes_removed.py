"""A service that the settings turn off is stopped when it is named, and its data stays; on the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kubernetes.story import OFF, Story, page, story_of
from tests.project import needs_pulumi

pytestmark = [
    pytest.mark.engine,
    needs_pulumi,
]
SETTINGS: dict[str, Any] = {"plinth:monitoring": {"exporters": OFF}}
PAGES = {
    (f"monitoring-{name}-0", port) for name, port in (("prometheus", 9090), ("alertmanager", 9093), ("grafana", 3000))
}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root, kubeconfig = tmp_path_factory.mktemp("leaving"), tmp_path_factory.mktemp("kube") / "config"
    with page() as port, story_of(root, kubeconfig, 1, SETTINGS, dict.fromkeys(PAGES, port)) as story:
        story.up()
        yield story


def test_what_is_turned_off_and_not_named_is_refused_and_nothing_is_touched(story: Story) -> None:
    before = len(story.store.calls)
    story.set("monitoring", grafana=OFF)
    said = " ".join(story.up(expect=2).split())
    assert "plinth:monitoring.grafana.enabled turns grafana off, which runs and holds data" in said
    assert "`plinth up t --remove grafana` stops it and keeps its volume claims" in said
    assert "--remove names qdrant" in " ".join(story.up("--remove", "qdrant", expect=2).split())
    shown = " ".join(story.environment.plinth("preview", "t").split())
    assert "`plinth up t --remove grafana` stops it, keeps its claims" in shown
    assert story.since(before) == []


def test_what_is_named_stops_alone_and_its_claim_stays(story: Story) -> None:
    before = len(story.store.calls)
    story.up("--remove", "grafana")
    gone = [(kind, name) for _, kind, name in story.since(before, "delete")]
    assert ("StatefulSet", "monitoring-grafana") in gone
    assert {name for kind, name in gone if kind == "StatefulSet"} == {"monitoring-grafana"}
    assert "data-monitoring-grafana-0" in story.store.of("PersistentVolumeClaim")
    assert "qdrant-0" in story.store.of("Pod")
    # What stays is as safe as it was.
    story.set("monitoring", prometheus=OFF, alertmanager=OFF)
    said = " ".join(story.up(expect=2).split())
    assert "--remove alertmanager --remove prometheus" in said
