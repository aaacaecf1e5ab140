"""The docker target on the real Pulumi engine, with a provider that remembers: order, repair, drift, secrets.

Nothing is started here, so the gates that poll a service are opened beforehand: a server answers every probe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from plinth.paths import home
from tests.containers.provider import DockerProvider
from tests.containers.recorded import Recorded
from tests.containers.stack import free_span
from tests.containers.wire import in_the_clear, to_plain
from tests.nodes import Nodes
from tests.project import Environment, needs_pulumi
from tests.provider import served

pytestmark = [
    pytest.mark.engine,
    needs_pulumi,
]
NODES = 3


class Story:
    """One environment, what its engine was told, and the nodes that answer."""

    def __init__(self, environment: Environment, provider: DockerProvider, recorded: Recorded, nodes: Nodes) -> None:
        self.environment, self.provider, self.recorded, self.nodes = environment, provider, recorded, nodes

    def up(self, expect: int = 0) -> str:
        return self.environment.pulumi("up", expect=expect)


class Recording(Environment):
    """The engine alone: what the command line asks a real Docker engine first is another test's."""

    def pulumi(self, verb: str, expect: int | None = 0) -> str:
        return self.run(DRIVE, verb, expect=expect)


# The same stack that the command line drives, without its questions to an engine that is not there.
DRIVE = """
import sys
from pathlib import Path
from pulumi.automation import CommandError
from plinth.deployment.automation import runs
from plinth.deployment.stack import open_stack
opened = open_stack(Path.cwd(), "t")
stack = opened.automation
try:
    if sys.argv[1] == "up":
        for _ in runs(opened, opened.outputs()):
            print(stack.up(refresh=True, on_output=print).summary.resource_changes)
    elif sys.argv[1] == "refresh":
        stack.refresh(on_output=print)
    else:
        stack.destroy(on_output=print, run_program=False)
except CommandError as error:
    print(error)
    sys.exit(1)
"""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    recorded, first = Recorded(), free_span(NODES)
    provider = DockerProvider(recorded)
    nodes = Nodes("peers", [first + 10 * number for number in range(NODES)])
    settings = {
        "plinth:target": "docker",
        "plinth:qdrant": {
            "nodes": NODES,
            "replication_factor": 2,
            "http_port": first,
            "grpc_port": free_span(NODES),
        },
        "plinth:postgres": {"enabled": False},
        "plinth:redis": {"enabled": False},
        "plinth:backup": {"enabled": False},
        "plinth:collections": {"only": []},
        "plinth:monitoring": {
            "prometheus": {"enabled": False},
            "alertmanager": {"enabled": False},
            "grafana": {"enabled": False},
            "exporters": {"enabled": False},
        },
    }
    with served(provider) as debug:
        environment = Recording(tmp_path_factory.mktemp("recorded"), settings, PULUMI_DEBUG_PROVIDERS=debug)
        yield Story(environment, provider, recorded, nodes)
    nodes.close()


def of(kind: str, calls: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    return [(verb, name) for verb, found, name in calls if found == kind]


def test_whichever_create_is_refused_the_next_up_goes_on_from_there(story: Story) -> None:
    refusals = 0
    while True:
        # Every third create is refused, so each run gets a little further than the one before.
        story.recorded.refuse_create = 3
        said = story.environment.pulumi("up", expect=None)
        if story.recorded.refuse_create > 0:
            break
        assert "the engine refused to make" in said, said
        refusals += 1
        assert refusals < 20
    story.recorded.refuse_create = None
    assert refusals >= 3
    made = [(kind, name) for verb, kind, name in story.recorded.calls if verb == "create"]
    assert len(made) == len(set(made)), "something was made twice"
    running = [name for name in story.recorded.names("container") if not name.endswith("-config")]
    assert running == [f"plinth-t-qdrant-{number}" for number in range(NODES)]


def test_a_second_up_changes_nothing(story: Story) -> None:
    before = len(story.recorded.calls)
    said = story.up()
    assert story.recorded.calls[before:] == []
    assert re.search(r"\{'same': \d+\}", said), said


@pytest.mark.requirement("S1-14")
def test_no_secret_is_plain_on_the_wire_or_in_the_state(story: Story) -> None:
    kept = json.loads((home(story.environment.root, "t").data / "secrets.json").read_text())
    assert set(kept) >= {"qdrant_api_key", "qdrant_read_only_api_key"}
    states = story.environment.states()
    assert "plinth-t-qdrant-0" in states
    for name in ("qdrant_api_key", "qdrant_read_only_api_key"):
        assert kept[name] in json.dumps([inputs for _, inputs in story.provider.requests])
        for kind, inputs in story.provider.requests:
            assert kept[name] not in json.dumps(in_the_clear(inputs)), kind
        assert kept[name] not in states


def test_a_change_goes_from_node_to_node_and_each_waits_for_the_one_before(story: Story) -> None:
    before = len(story.recorded.calls)
    story.environment.settings["plinth:qdrant"]["wal_capacity_mb"] = 64
    story.environment.save()
    story.up()
    calls = story.recorded.calls[before:]
    assert_one_by_one(calls)
    volumes = of("volume", calls)
    # The new files lie in a volume of their own until the last node is done with the old ones.
    assert [verb for verb, _ in volumes] == ["create", "delete"]
    assert calls[-1][:2] == ("delete", "volume")


def test_another_image_goes_from_node_to_node(story: Story) -> None:
    before = len(story.recorded.calls)
    story.environment.settings["plinth:docker"] = {"images": {"qdrant": "mirror.example/qdrant:v1.18.3-patched"}}
    story.environment.save()
    story.up()
    calls = story.recorded.calls[before:]
    assert_one_by_one(calls)
    assert ("create", "mirror.example/qdrant:v1.18.3-patched") in of("remoteImage", calls)


def assert_one_by_one(calls: list[tuple[str, str, str]]) -> None:
    """Each node's container went only when that of the one before was there again."""
    nodes = [(verb, name) for verb, name in of("container", calls) if not name.endswith("-config")]
    assert nodes == [(verb, f"plinth-t-qdrant-{n}") for n in range(NODES) for verb in ("delete", "create")]


def test_a_node_that_does_not_settle_stops_the_change_before_the_next(story: Story) -> None:
    before = len(story.recorded.calls)
    story.environment.settings["plinth:qdrant"] |= {"wal_capacity_mb": 32, "settle_timeout_sec": 2}
    story.environment.save()
    story.nodes.restless = {0}
    said = story.up(expect=1)
    assert "qdrant-0 is not settled in its cluster after 2 s" in said
    assert "first shard 0 of c on peer 1: Partial" in said
    touched = {name for _, name in of("container", story.recorded.calls[before:])}
    assert touched == {"plinth-t-qdrant-0", "plinth-t-qdrant-0-config"}
    story.nodes.restless = set()
    story.up()
    assert "plinth-t-qdrant-2" in {name for _, name in of("container", story.recorded.calls[before:])}


def test_another_key_is_let_in_by_every_node_before_any_shows_it(story: Story) -> None:
    kept = json.loads((home(story.environment.root, "t").data / "secrets.json").read_text())["qdrant_api_key"]
    before, asked = len(story.recorded.calls), len(story.provider.requests)
    story.environment.settings["plinth:qdrant"]["api_key"] = "the-other-key"
    story.environment.save()
    story.up()
    containers = of("container", story.recorded.calls[before:])
    rolled = [name for verb, name in containers if verb == "create" and not name.endswith("-config")]
    assert rolled == [f"plinth-t-qdrant-{number}" for number in range(NODES)] * 3
    configs = [
        yaml.safe_load(upload["content"])["service"]
        for kind, inputs in story.provider.requests[asked:]
        if kind == "container" and not inputs.get("start", True)
        for upload in to_plain(inputs)["uploads"]
        if upload["file"].endswith("config.yaml")
    ]
    assert [(config["api_key"], config.get("alt_api_key")) for config in configs] == [
        (kept, "the-other-key"),
        ("the-other-key", kept),
        ("the-other-key", None),
    ]
    assert "the-other-key" not in json.dumps([in_the_clear(inputs) for _, inputs in story.provider.requests])
    assert re.search(r"\{'same': \d+\}", story.up())


def test_what_something_else_removed_is_found_and_made_again(story: Story) -> None:
    story.recorded.lose("container", "plinth-t-qdrant-1")
    before = len(story.recorded.calls)
    story.up()
    assert of("container", story.recorded.calls[before:]) == [("create", "plinth-t-qdrant-1")]


def test_volumes_of_data_outlive_their_resources_and_nothing_is_protected(story: Story) -> None:
    (state,) = (story.environment.root / ".plinth" / "backend" / ".pulumi" / "stacks").rglob("t.json")
    resources = json.loads(state.read_text())["checkpoint"]["latest"]["resources"]
    volumes = {found["inputs"]["name"]: found for found in resources if found["type"] == "docker:index/volume:Volume"}
    kept = {name for name, found in volumes.items() if found.get("retainOnDelete")}
    assert kept == {f"plinth-t-qdrant-{number}-{kind}" for number in range(NODES) for kind in ("storage", "snapshots")}
    # A protected resource would fail a `down` as a whole.
    assert not [found["urn"] for found in resources if found.get("protect")]


def test_a_destroy_goes_backwards_and_leaves_the_volumes_of_data(story: Story) -> None:
    before = len(story.recorded.calls)
    story.environment.pulumi("destroy")
    calls = story.recorded.calls[before:]
    nodes = [name for _, name in of("container", calls) if not name.endswith("-config")]
    assert nodes == [f"plinth-t-qdrant-{number}" for number in reversed(range(NODES))]
    networks = [index for index, (_, kind, _) in enumerate(calls) if kind == "network"]
    assert min(networks) > max(index for index, (_, _, name) in enumerate(calls) if name in nodes)
    assert [name for _, name in of("volume", calls) if "-config-" not in name] == []
    assert sorted(name for name in story.recorded.names("volume") if "-config-" not in name) == sorted(
        f"plinth-t-qdrant-{number}-{kind}" for number in range(NODES) for kind in ("storage", "snapshots")
    )
