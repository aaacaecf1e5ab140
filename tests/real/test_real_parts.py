"""`make test-real`: each real part with its up, second up, change, kill and down; skipped by name where it lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.project import needs_pulumi
from tests.real.parts import NOTHING_CHANGES, PARTS, Part, Story

pytestmark = [pytest.mark.engine, needs_pulumi, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", params=PARTS, ids=lambda part: part.name)
def story(request: pytest.FixtureRequest) -> Iterator[Story]:
    part: Part = request.param
    reason = part.lacking()
    if reason:
        pytest.skip(f"{part.name}: {reason}")
    with part.story() as story:
        yield story


def test_up_ends_ready(story: Story) -> None:
    assert NOTHING_CHANGES not in story.up()
    story.environment.wait_ready()


def test_a_second_up_changes_nothing(story: Story) -> None:
    assert NOTHING_CHANGES in story.up()


def test_a_changed_setting_is_applied(story: Story) -> None:
    redis = story.environment.settings.setdefault("plinth:redis", {})
    redis["maxmemory_mib"] = redis.get("maxmemory_mib", 64) + 8
    story.environment.save()
    assert NOTHING_CHANGES not in story.up()
    story.environment.wait_ready()
    assert NOTHING_CHANGES in story.up()


def test_what_was_killed_serves_again(story: Story) -> None:
    story.kill()
    story.up()
    story.environment.wait_ready()


# In a process of its own: on kubernetes the ways to a store are open as long as the command that opened them.
ASK = """
import json, sys
from plinth.cli.common import stack_of
from plinth.qdrant.client import Qdrant
from plinth.deployment.reach import reach
stack = stack_of(sys.argv[1])
reach(stack)
where = stack.outputs()["qdrant"]
with Qdrant(where["url"], where["api_key"]) as qdrant:
    print(json.dumps(qdrant.collections()))
"""


def collections(story: Story) -> set[str]:
    said = story.environment.run(ASK, story.environment.env)
    return set(json.loads(said.splitlines()[-1]))


def test_down_keeps_the_data_and_up_finds_it(story: Story) -> None:
    before = collections(story)
    assert before
    story.down()
    story.up()
    story.environment.wait_ready()
    assert collections(story) == before
    assert "is down" in story.down()
