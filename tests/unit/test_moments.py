"""Moments that a clock wrote which was ahead: they are none, what hangs on them is due now, and `status` says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plinth.backup import run as backup_run
from plinth.backup.config import Schedule
from plinth.backup.freshness import BackupStatus, problem
from plinth.backup.output import drilled_lines
from plinth.backup.scheduler import _since, plan
from plinth.resources import certificate
from plinth.status_files import events
from plinth.status_files.backup_runs import KINDS, Kind, Run, State, read, record
from plinth.system.timestamps import SKEW_S, past
from plinth.system.tls import begins_ahead, is_due, make_authority

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
AT = NOW.timestamp()
SINCE = NOW - timedelta(days=30)
AHEAD = [AT + SKEW_S + 1, AT + 86400, 1924992000.0, 4102444800.0, 1e12, 1e18, float("inf")]
JUST = AT - 60


def run(attempted: float, succeeded: float | None = None, result: Any = "ok") -> Run:
    return Run(attempted_at=attempted, succeeded_at=succeeded, result=result, duration_s=1)


@pytest.mark.parametrize("ahead", AHEAD)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("result", ["ok", "failed", "incomplete"])
def test_what_is_dated_ahead_is_due_now(ahead: float, kind: Kind, result: str) -> None:
    timely = {other: run(JUST, JUST) for other in KINDS}
    for moments in ((ahead, ahead), (ahead, JUST), (JUST, ahead), (ahead, None)):
        due = plan(Schedule(), SINCE, State(**{**timely, kind: run(*moments, result)}), NOW)
        assert due[kind] == NOW
        others = set(due) - {kind}
        assert all(due[other] > NOW for other in others)


@given(st.floats(0, AT), st.sampled_from(KINDS))
def test_what_is_past_is_left_as_it_is(moment: float, kind: Kind) -> None:
    state = State(**{kind: run(moment, moment)})
    assert state.as_of(AT) == state
    assert not state.ahead(AT)


@pytest.mark.parametrize("ahead", AHEAD)
@pytest.mark.parametrize("kind", KINDS)
def test_status_says_what_is_dated_ahead_and_counts_it_as_none(ahead: float, kind: Kind) -> None:
    state = State(**{kind: run(ahead, ahead)})
    told = BackupStatus(state).to_json(AT)
    (row,) = [row for row in BackupStatus(state).rows(AT) if row[0] == kind]
    assert row[1:3] == ("never ran", "")
    assert f"the last {kind} is dated " in row[3]
    assert "ahead of this clock" in row[3]
    assert "due now" in row[3]
    assert (problem(state, "0 3 * * *", 26, AT) is not None) == (kind == "backup")
    assert told[kind] is None
    assert kind in told["ahead_of_clock"]


def test_status_of_a_good_state_says_nothing_of_clocks() -> None:
    state = State(backup=run(JUST, JUST))
    assert "clock" not in str(list(BackupStatus(state).rows(AT)))
    assert set(BackupStatus(state).to_json(AT)) == {*KINDS, "problem"}
    assert problem(state, "0 3 * * *", 26, AT) is None


@pytest.mark.parametrize("ahead", AHEAD[1:-1])
def test_a_failed_run_does_not_keep_a_success_that_is_ahead(tmp_path: Path, ahead: float) -> None:
    file = tmp_path / "backups.json"
    file.write_text(State(backup=run(ahead, ahead)).model_dump_json())
    record(file, "backup", run(AT, None, "failed"))
    left = read(file).backup
    assert left is not None
    assert left.attempted_at == AT
    assert left.succeeded_at is None


@pytest.mark.parametrize("written", ["1924992000\n", "1e18\n", "inf\n", "nan\n", "", "soon\n", "\0\0\0"])
def test_a_schedule_that_began_ahead_begins_now(tmp_path: Path, written: str) -> None:
    (tmp_path / "scheduled-since").write_text(written)
    before = datetime.now(UTC)
    assert before - timedelta(seconds=1) <= _since(tmp_path) <= datetime.now(UTC)
    assert _since(tmp_path) <= datetime.now(UTC)


def test_a_schedule_that_began_long_ago_still_did(tmp_path: Path) -> None:
    (tmp_path / "scheduled-since").write_text("1700000000.0\n")
    assert _since(tmp_path).timestamp() == 1700000000.0


@pytest.mark.parametrize("ahead", AHEAD[:-1])
def test_marks_ahead_of_the_clock_are_none(tmp_path: Path, ahead: float) -> None:
    file = tmp_path / "marks.json"
    load = {"at": ahead, "verdict": "pass", "operations": {}}
    file.write_text(json.dumps({"version": 1, "deployed_at": ahead, "load": load}))
    assert events.read(file, AT) == events.Marks()
    assert not list(events.families(events.read(file, AT)))
    file.write_text(json.dumps({"version": 1, "deployed_at": JUST, "load": {**load, "at": JUST}}))
    assert events.read(file, AT).deployed_at == JUST
    assert events.read(file, AT).load is not None


def test_the_newest_set_is_none_that_is_dated_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.backup.run.time", SimpleNamespace(time=lambda: AT))

    def newest(*moments: float) -> float:
        sets = [SimpleNamespace(id=str(moment), at=moment, complete=True) for moment in sorted(moments)]
        restic: Any = SimpleNamespace(snapshots=lambda: sets, location="r")
        return backup_run.newest(restic, restic.snapshots()).at

    assert newest(JUST - 9, JUST, AHEAD[1], AHEAD[2]) == JUST
    assert newest(AHEAD[1], AHEAD[2]) == AHEAD[2]


@pytest.mark.parametrize("ahead", AHEAD[1:4])
def test_a_drill_tells_no_negative_age(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    monkeypatch.setattr("plinth.backup.output.time", SimpleNamespace(time=lambda: AT))
    drilled: Any = SimpleNamespace(
        manifest=SimpleNamespace(ended_at=ahead, failures=()), snapshot=SimpleNamespace(short="s"), result="ok", told={}
    )
    assert "ahead of this clock" in drilled_lines(drilled)[0]
    drilled.manifest.ended_at = AT + 2
    assert "0.0 h old" in drilled_lines(drilled)[0]


def test_a_certificate_that_begins_ahead_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_authority("a")
    early = datetime.now(UTC) - timedelta(days=30)
    assert is_due(made.cert, early)
    assert begins_ahead(made.cert, early)
    assert not is_due(made.cert)
    first = certificate.kept_authority(tmp_path / "tls", "a")
    assert certificate.kept_authority(tmp_path / "tls", "a") == first
    monkeypatch.setattr("plinth.resources.certificate.begins_ahead", lambda cert: begins_ahead(cert, early))
    assert certificate.kept_authority(tmp_path / "tls", "a") != first


@pytest.mark.parametrize("moment", [None, *AHEAD, float("nan")])
def test_no_moment_and_one_ahead_are_the_same(moment: float | None) -> None:
    assert past(moment, AT) is None


@pytest.mark.parametrize("moment", [0.0, 1.0, AT - 1, AT, AT + SKEW_S])
def test_a_moment_that_was_is_itself(moment: float) -> None:
    assert past(moment, AT) == moment
