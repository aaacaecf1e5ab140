"""What a run that failed recorded binds the next no further than it may have touched the data."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from plinth.deployment.deployed_versions import Deployed, settled
from plinth.deployment.preflight import refusals
from plinth.settings.loader import parse


def ran(version: str, nodes: int = 1) -> Deployed:
    return {"qdrant_version": version, "qdrant_nodes": nodes}


OLD, NEW = ran("1.18.3"), ran("1.19.1")


@pytest.mark.parametrize(
    ("recorded", "ended_well", "answers", "wanted", "words"),
    [
        # The run ended before it came to Qdrant: the old one answers.
        (NEW, OLD, ["1.18.3"], "1.18.3", ""),
        (NEW, OLD, ["1.18.3"], "1.20.0", "skips from 1.18.3 to 1.20.0"),
        # It ended after: the new one has opened the data.
        (NEW, OLD, ["1.19.1"], "1.18.3", "1.19.1 runs: Qdrant cannot go back"),
        (NEW, OLD, ["1.19.1"], "1.20.0", ""),
        # Between two nodes.
        (NEW, OLD, ["1.19.1", "1.18.3", "1.18.3"], "1.18.3", "a run to 1.19.1 did not end well"),
        (NEW, OLD, ["1.19.1", "1.18.3", "1.18.3"], "1.19.1", ""),
        (NEW, OLD, ["1.19.1", None, "1.19.1"], "1.20.0", "skips from 1.18.3 to 1.20.0"),
        # Nobody knows.
        (NEW, OLD, [None], "1.18.3", "Set 1.19.1 again; or"),
        (NEW, OLD, [None], "1.20.0", "skips from 1.18.3 to 1.20.0"),
        (NEW, OLD, [None], "1.19.1", ""),
        # A first run, and one that another clone made.
        (ran("1.81.3"), {}, [None], "1.18.3", "cannot go back"),
        (OLD, {}, ["1.18.3"], "1.18.4", ""),
    ],
)
def test_what_the_next_run_may_set(
    recorded: Deployed, ended_well: Deployed, answers: Sequence[str | None], wanted: str, words: str
) -> None:
    before = settled(recorded, ended_well, answers, forget=False)
    refused = " ".join(refusals(parse({"target": "docker", "qdrant": {"version": wanted}}, source="x"), before))
    assert words in refused
    assert bool(words) == bool(refused)


@pytest.mark.parametrize(
    ("ended_well", "answers", "kept"),
    [
        (OLD, [None], ("1.18.3", "1.18.3")),
        (OLD, ["1.19.1"], ("1.19.1", "1.19.1")),
        (OLD, ["1.19.1", None], ("1.18.3", "1.19.1")),
        ({**OLD, "qdrant_newest": "1.19.1"}, [None], ("1.18.3", "1.19.1")),
        ({}, [None], (None, None)),
    ],
)
def test_down_keeps_what_served_and_forgets_what_never_answered(
    ended_well: Deployed, answers: Sequence[str | None], kept: tuple[str | None, str | None]
) -> None:
    before = settled(NEW, ended_well, answers, forget=True)
    assert (before.get("qdrant_version"), before.get("qdrant_newest")) == kept


def test_nodes_that_may_still_be_there_are_counted() -> None:
    assert settled(ran("1.18.3", 1), ran("1.18.3", 3), ["1.18.3"], forget=False)["qdrant_nodes"] == 3
    assert settled(ran("1.18.3", 3), ran("1.18.3", 1), ["1.18.3"], forget=False)["qdrant_nodes"] == 3
