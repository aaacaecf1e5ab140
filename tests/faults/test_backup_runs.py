"""Backups end to end: what a run takes, what is listed, what is verified, what a drill proves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from plinth.backup import drill, inspection
from plinth.backup import run as backup_run
from tests.faults.world import POINTS, ROWS, Backups


@pytest.mark.requirement("S1-06")
def test_a_run_takes_every_store_and_a_drill_brings_it_back(backups: Callable[..., Backups]) -> None:
    made = backups()
    taken = backup_run.run(made.config, made.say)
    assert taken.manifest.failures == ()
    assert taken.manifest.stores == {"qdrant": "ok", "redis": "ok", "postgres": "ok"}
    known = taken.manifest
    assert known.qdrant
    assert known.postgres
    assert {c.name: c.points and c.points.low for c in known.qdrant.collections} == {"trades_v1": POINTS, "a b%": 20}
    assert known.qdrant.aliases == {"trades": "trades_v1"}
    core = next(each for each in known.postgres.databases if each.name == "core")
    assert {table.name: table.rows for table in core.tables} == {"rows": ROWS, "keyless": ROWS}
    verified = inspection.verify(made.config, made.say)
    assert verified.problems == ()
    drilled = drill.run(made.config, made.say)
    assert drilled.problems == {"postgres": (), "qdrant": (), "redis": ()}
    state = made.state
    assert state.backup
    assert state.drill
    assert (state.backup.result, state.drill.result) == ("ok", "ok")
    assert [(each["complete"], each["points"]["trades_v1"]) for each in made.sets()] == [(True, POINTS)]
