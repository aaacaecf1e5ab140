"""`make test-real`: each real part with its up, second up, change, kill and down; skipped by name where it lacks."""

from __future__ import annotations

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


def test_down_keeps_the_data_and_up_finds_it(story: Story) -> None:
    with story.environment.qdrant() as qdrant:
        before = {name: qdrant.call("GET", f"/collections/{name}")["points_count"] for name in qdrant.collections()}
    assert before
    story.down()
    story.up()
    story.environment.wait_ready()
    with story.environment.qdrant() as qdrant:
        assert set(qdrant.collections()) == set(before)
    assert "is down" in story.down()
