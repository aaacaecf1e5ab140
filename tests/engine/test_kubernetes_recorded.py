"""The kubernetes target on the real Pulumi engine, with a cluster that remembers: order, repair, growth.

Pulumi's provider and the API server are ours; the tunnels, the gates and the command line are the real ones. Qdrant's
nodes say what a test wants them to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from plinth.paths import home
from tests.containers.wire import in_the_clear
from tests.kubernetes.story import HTTP, Story, story_of
from tests.project import needs_pulumi

pytestmark = [
    pytest.mark.engine,
    needs_pulumi,
]
NODES = 3
BOUNDS = {("LimitRange", "ephemeral-storage"), ("ResourceQuota", "ephemeral-storage")}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root, kubeconfig = tmp_path_factory.mktemp("kubernetes"), tmp_path_factory.mktemp("kube") / "config"
    with story_of(root, kubeconfig, NODES, {}, {}) as story:
        yield story


def test_whichever_create_is_refused_the_next_up_goes_on_from_there(story: Story) -> None:
    refusals = 0
    while True:
        story.store.refuse_create = 2
        said = story.up(expect=None)
        if story.store.refuse_create > 0:
            assert "Deployed" in said, said
            break
        assert "the API server refused to make" in said, said
        refusals += 1
        assert refusals < 10
    story.store.refuse_create = None
    assert refusals >= 2
    assert len(story.store.of("Pod")) == NODES


def test_the_namespace_comes_first_then_secrets_then_charts(story: Story) -> None:
    made = [(kind, name) for verb, kind, name in story.store.calls if verb == "create"]
    assert (made[0], made[-1]) == (("Namespace", "vectors"), ("StatefulSet", "qdrant"))
    assert set(made[1:-1]) == {*BOUNDS, ("Secret", "qdrant-keys")}
    labels = story.store.of("Namespace")["vectors"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert labels["plinth.dev/stack"] == "t"


def test_a_second_up_changes_nothing(story: Story) -> None:
    before = len(story.store.calls)
    said = story.up()
    assert story.since(before) == []
    assert "nothing to change" in said


@pytest.mark.requirement("S1-14")
def test_no_secret_is_plain_on_the_wire_in_the_values_or_in_the_state(story: Story) -> None:
    kept = json.loads((home(story.environment.root, "t").data / "secrets.json").read_text())
    states = story.environment.states()
    assert "qdrant-keys" in states
    for name in ("qdrant_api_key", "qdrant_read_only_api_key"):
        assert kept[name] in json.dumps([inputs for _, inputs in story.provider.requests])
        for kind, inputs in story.provider.requests:
            assert kept[name] not in json.dumps(in_the_clear(inputs)), kind
        assert kept[name] not in json.dumps(story.provider.charts)
        assert kept[name] not in states


def test_the_commands_reach_the_cluster_through_tunnels(story: Story) -> None:
    found = story.environment.json("status", "t", "--no-cache")
    assert found["ready"] is True
    assert [peer["peer"] for peer in found["cluster"]] == [f"qdrant-{n}.qdrant-headless" for n in range(NODES)]
    story.environment.plinth("collections", "diff", "t")
    offset = story.environment.settings["plinth:kubernetes"]["forward_offset"]
    assert story.environment.outputs()["qdrant"]["url"] == f"http://127.0.0.1:{HTTP + offset}"


def test_a_change_goes_from_pod_to_pod_and_each_waits_for_the_one_before(story: Story) -> None:
    before = len(story.store.calls)
    story.set(wal_capacity_mb=64)
    story.up()
    steps = story.since(before, "update", "partition", "restart")
    expected = [("update", "StatefulSet", "qdrant")]
    for number in reversed(range(NODES)):
        expected += [("partition", str(number), "qdrant"), ("restart", "Pod", f"qdrant-{number}")]
    assert steps == [*expected, ("partition", str(NODES), "qdrant")]


def test_a_node_that_does_not_settle_stops_the_change_before_the_next(story: Story) -> None:
    before = len(story.store.calls)
    story.store.on_start = lambda pod: story.nodes.restless.add(0)
    story.set(wal_capacity_mb=32, settle_timeout_sec=1)
    story.environment.settings["plinth:qdrant"]["wal_capacity_mb"] = 32
    said = story.up(expect=1)
    assert "qdrant is not settled after" in said
    assert re.search(r"replica\(s\) are not active as peer \d sees it, first shard 0 of c on peer 1: Partial", said)
    assert story.since(before, "restart") == [("restart", "Pod", f"qdrant-{NODES - 1}")]
    # What restarts by itself now must not take the change with it.
    assert story.store.of("StatefulSet")["qdrant"]["spec"]["updateStrategy"]["rollingUpdate"]["partition"] == NODES
    story.store.on_start = lambda pod: None
    story.nodes.restless = set()
    story.set(settle_timeout_sec=20)
    story.up()
    assert [name for _, _, name in story.since(before, "restart")] == ["qdrant-2", "qdrant-1", "qdrant-0"]


def test_a_volume_grows_in_steps_of_its_own_and_no_pod_is_touched(story: Story) -> None:
    before = len(story.store.calls)
    story.set(disk_gib=20)
    said = story.environment.plinth("preview", "t")
    assert "would expand the claim storage-qdrant-0 from 10 GiB to 20 GiB" in said
    assert story.since(before) == []
    story.up()
    calls = story.since(before)
    claims = [f"{volume}-qdrant-{number}" for volume in ("snapshots", "storage") for number in range(NODES)]
    assert calls[: 2 * NODES] == [("expand", "PersistentVolumeClaim", claim) for claim in claims]
    assert calls[2 * NODES :] == [("orphan", "StatefulSet", "qdrant"), ("create", "StatefulSet", "qdrant")]
    templates = story.store.of("StatefulSet")["qdrant"]["spec"]["volumeClaimTemplates"]
    assert {t["spec"]["resources"]["requests"]["storage"] for t in templates} == {"20Gi"}


def test_a_volume_that_would_shrink_or_cannot_grow_is_a_sentence(story: Story) -> None:
    before = len(story.store.calls)
    story.set(disk_gib=15)
    assert "has 20 GiB and 15 GiB are set: volumes only grow" in " ".join(story.up(expect=1).split())
    story.store.expandable = False
    story.set(disk_gib=30)
    said = " ".join(story.up(expect=1).split())
    assert "its storage class 'fast' does not allow" in said
    story.store.expandable = True
    story.set(disk_gib=20)
    assert story.since(before) == []


# The engine alone, as `pulumi up` drives it.
DRIVE = """
import sys
from pathlib import Path
from pulumi.automation import CommandError
from plinth.deployment.stack import open_stack
stack = open_stack(Path.cwd(), "t").automation
try:
    getattr(stack, sys.argv[1])(on_output=print)
except CommandError as error:
    print(error)
    sys.exit(1)
"""


def test_the_engine_alone_refuses_to_replace_or_delete_a_stateful_set(story: Story) -> None:
    before = len(story.store.calls)
    story.set(disk_gib=40)
    assert "marked for protection" in story.environment.run(DRIVE, "up", expect=1)
    story.set(disk_gib=20)
    assert "protect" in story.environment.run(DRIVE, "destroy", expect=1)
    assert story.since(before, "delete", "orphan") == []
    assert len(story.store.of("Pod")) == NODES


def test_a_node_that_is_a_member_may_not_leave(story: Story) -> None:
    story.environment.settings["plinth:qdrant"] |= {"nodes": 1, "replication_factor": 1}
    story.environment.save()
    said = " ".join(story.up(expect=1).split())
    assert "plinth:qdrant.nodes goes from 3 to 1" in said
    assert "Node qdrant-2.qdrant-headless still" in said
    story.environment.settings["plinth:qdrant"] |= {"nodes": NODES, "replication_factor": 2}
    story.environment.save()


def test_no_command_has_printed_a_secret(story: Story) -> None:
    for command in ("outputs", "preview", "status"):
        story.environment.plinth(command, "t", expect=None)
    assert story.environment.printed_secrets() == []


def test_a_down_goes_backwards_and_leaves_the_claims_and_their_namespace(story: Story) -> None:
    before = len(story.store.calls)
    said = " ".join(story.environment.plinth("down", "t", "--yes").split())
    deleted = [(kind, name) for _, kind, name in story.since(before, "delete")]
    assert deleted[0] == ("StatefulSet", "qdrant")
    assert set(deleted[1:]) == {*BOUNDS, ("Secret", "qdrant-keys")}
    assert list(story.store.of("Namespace")) == ["vectors"]
    assert len(story.store.of("PersistentVolumeClaim")) == 2 * NODES
    assert f"{2 * NODES} volume claims of the namespace vectors" in said
