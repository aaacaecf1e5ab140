"""What is turned off while it runs: never in passing, and named with the key that did it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.kubernetes.removed_services import refusal, setting
from plinth.settings.loader import parse

NAMES = st.sampled_from(["qdrant", "postgres", "redis", "prometheus", "alertmanager", "grafana"])


@given(st.sets(NAMES), st.sets(NAMES))
def test_an_up_goes_on_when_exactly_what_leaves_is_named(leaving: set[str], named: set[str]) -> None:
    said = refusal("t", {service: f"key.of.{service}" for service in leaving}, named)
    assert (said is None) == (leaving == named)
    for service in leaving - named if named <= leaving else ():
        assert f"key.of.{service} turns {service} off" in str(said)
        assert f"--remove {service}" in str(said)
    if said:
        assert said.endswith(".")


@pytest.mark.parametrize(
    ("settings", "service", "key"),
    [
        ({"redis": {"enabled": False}}, "redis", "plinth:redis.enabled"),
        ({"monitoring": {"grafana": {"enabled": False}}}, "grafana", "plinth:monitoring.grafana.enabled"),
        (
            {"kubernetes": {"managed": {"redis_url": "redis://r.test:6379"}}},
            "redis",
            "plinth:kubernetes.managed.redis_url",
        ),
    ],
)
def test_the_key_is_the_one_that_turned_it_off(settings: dict[str, Any], service: str, key: str) -> None:
    assert setting(parse({"target": "kubernetes", **settings}, source="x"), service) == key
