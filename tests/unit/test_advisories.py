"""Versions with published holes are refused, unless somebody accepted one with a reason."""

from __future__ import annotations

import pytest

from plinth.deployment.advisories import Advisory, load_advisories, refuse_known_holes
from plinth.errors import UserError
from plinth.targets.images import pins
from tests.conftest import ROOT

LUA = Advisory(id="C-1", image="redis", fixed=("6.2.20", "7.4.6", "8.2.2"), effect="e", source="s")
MAJOR = Advisory(id="C-2", image="postgres", since="15", fixed=("15.18", "17.10"), effect="e", source="s")


@pytest.mark.parametrize(
    ("advisory", "version", "affected"),
    [
        (LUA, "7.4.5-bookworm", True),
        (LUA, "7.4.6-bookworm", False),
        (LUA, "v7.4.10", False),
        (LUA, "6.2.19", True),
        # A line without a fix of its own is bad until the newest line.
        (LUA, "7.0.15", True),
        (LUA, "8.0.9", True),
        (LUA, "8.2.1", True),
        (LUA, "8.3.0", False),
        (LUA, "9.0", False),
        (LUA, "", False),
        (LUA, "sha-abc", False),
        (LUA, "6dce6dab1cc3", False),
        (LUA, "6", True),
        (LUA, "7-alpine", True),
        (LUA, "7.4.5.1", True),
        (LUA, "7.4.5_1", True),
        (MAJOR, "17.9", True),
        (MAJOR, "17.10-bookworm", False),
        (MAJOR, "16.20", True),
        (MAJOR, "14.1", False),
        (MAJOR, "18.0", False),
    ],
)
def test_a_version_has_the_hole_below_the_fix_of_its_line(advisory: Advisory, version: str, affected: bool) -> None:
    assert advisory.affects(version) is affected


def test_every_pinned_image_has_no_hole_of_the_list_and_every_entry_names_a_pinned_image() -> None:
    advisories = load_advisories(ROOT)
    refuse_known_holes(pins(ROOT), advisories, {})
    assert {advisory.image for advisory in advisories.advisories} <= set(pins(ROOT))


@pytest.mark.parametrize(
    "reference",
    [
        "docker.io/library/redis:7.4.5-bookworm",
        f"r.test:5000/own/redis:7.4.5@sha256:{'a' * 64}",
        "redis:7.2.1",
    ],
)
def test_a_hole_is_refused_by_name_and_can_be_accepted(reference: str) -> None:
    advisories = load_advisories(ROOT)
    with pytest.raises(UserError, match=r"redis:7\S+ has CVE-2025-49844: .*take .*7\.4\.6.*accepted_advisories"):
        refuse_known_holes({"redis": reference}, advisories, {})
    every = {advisory.id: "behind a wall" for advisory in advisories.advisories}
    refuse_known_holes({"redis": reference}, advisories, every)
    with pytest.raises(UserError, match="CVE-2026-23479"):
        refuse_known_holes({"redis": reference}, advisories, {"CVE-2025-49844": "behind a wall"})
