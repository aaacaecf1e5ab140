"""What breaks a backup: each breaks one thing for real, and asks that nothing is lost and that a sentence says so."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from plinth.backup import drill, inspection
from plinth.backup import run as backup_run
from plinth.backup.repository.restic import Restic
from plinth.backup.session import BackupError, working
from tests.faults.world import Backups, Live, killed_at
from tests.waiting import wait_for

PHASES = (
    "opening the repository",
    "taking qdrant a b%",
    "taking qdrant trades_v1",
    "taking redis",
    "taking postgres core",
    "writing the manifest",
    "storing",
    "letting old sets go",
)


def run_when_free(made: Backups) -> backup_run.Taken:
    """The next run; programs that outlived a killed one hold its lock until they have ended."""
    return backup_run.run(made.config, made.say, wait_s=60)


@pytest.mark.requirement("S1-06")
def test_a_kill_at_any_step_leaves_the_last_good_set_and_the_next_run_cleans_up(stock: Backups, live: Live) -> None:
    made = stock
    good = made.sets()[0]["snapshot"]
    for phase in PHASES:
        killed_at(phase, made.command("run"))
        assert good in {each["snapshot"] for each in made.listed_when_free()}
    after = run_when_free(made)
    assert after.manifest.complete
    assert made.sets()[0]["snapshot"] == after.snapshot
    assert all(each["complete"] for each in made.sets())
    assert inspection.verify(made.config, made.say).problems == ()
    assert not (made.work / "stage").exists()
    assert not (made.work / "asked.json").exists()
    with live.node as node:
        for name in node.collections():
            assert node.call("GET", f"/collections/{name.replace('%', '%25')}/snapshots") == []


def test_sets_are_kept_by_their_age_and_all_of_the_last_day(backups: Callable[..., Backups]) -> None:
    made = backups(keep={"daily": 2, "weekly": 2, "monthly": 2})
    days = ("04-10 03:00", "05-20 03:00", "06-01 03:00", "06-08 03:00", "06-09 03:00", "06-10 03:00", "06-10 14:00")
    with working(made.config, made.say) as work:
        restic = Restic(work)
        restic.open_or_make()
        said = {"RESTIC_REPOSITORY": str(made.repository), "RESTIC_PASSWORD": "correct horse"}
        for day in days:
            at = ["--time", f"2026-{day}:00", "--host", "t", "--tag", "t,complete"]
            saved = work.run(["restic", "backup", *at, made.directory / "password"], said)
            assert saved.code == 0, saved.words
        restic.forget(made.config.keep)
        left = [datetime.fromtimestamp(each.at).strftime("%m-%d %H:%M") for each in restic.snapshots()]
    # Of the weeks the 10th's and, before it, the 1st's; of the months June's and May's.
    assert left == ["05-20 03:00", "06-01 03:00", "06-09 03:00", "06-10 03:00", "06-10 14:00"]


def packs(made: Backups) -> list[Path]:
    return sorted((made.repository / "data").glob("*/*"), key=lambda path: path.stat().st_size)


def test_a_flipped_bit_in_the_repository_is_found_by_verify_drill_and_in_turn_by_check(
    backups: Callable[..., Backups],
) -> None:
    made = backups()
    backup_run.run(made.config, made.say)
    assert inspection.check(made.config, made.say).parts == 4
    pack = packs(made)[-1]
    content = bytearray(pack.read_bytes())
    content[len(content) // 3] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    with pytest.raises(BackupError):
        inspection.verify(made.config, made.say)
    (verified,) = inspection.verify_all(made.config, made.say)
    assert verified.problems
    with pytest.raises(BackupError, match="is damaged"):
        inspection.check(made.config, made.say, every=True)
    # It ends at once where the bit is one of the manifest's.
    with suppress(BackupError):
        assert drill.run(made.config, made.say).result == "failed"
    assert made.state.check
    assert made.state.drill
    assert (made.state.check.result, made.state.drill.result) == ("failed", "failed")


def test_a_missing_pack_is_found_by_a_check(stock: Backups) -> None:
    made = stock
    packs(made)[-1].unlink()
    with pytest.raises(BackupError, match=r"is damaged: .*Make a backup into another one first"):
        inspection.check(made.config, made.say)


def test_a_wrong_password_is_said_and_makes_no_second_repository(stock: Backups) -> None:
    made = stock
    (made.directory / "password").write_text("wrong")
    with pytest.raises(BackupError, match=r"The password does not open the repository .*plinth:backup.password"):
        backup_run.run(made.config, made.say)
    assert made.state.backup
    assert made.state.backup.result == "failed"
    assert made.state.backup.succeeded_at
    (made.directory / "password").write_text("correct horse")
    assert len(made.sets()) == 1


def test_a_repository_that_is_gone_or_another_one_is_refused_and_not_made_anew(stock: Backups) -> None:
    made = stock
    inspection.prune(made.config, made.say)
    made.repository.rename(made.directory / "elsewhere")
    with pytest.raises(BackupError, match="is gone"):
        backup_run.run(made.config, made.say)
    assert not made.repository.exists()
    environment = {**os.environ, "RESTIC_PASSWORD": "correct horse"}
    subprocess.run(["restic", "-r", made.repository, "init"], env=environment, check=True, capture_output=True)
    with pytest.raises(BackupError, match="somebody has put another in its place"):
        backup_run.run(made.config, made.say)


def test_a_stale_lock_of_a_dead_restic_is_freed(stock: Backups) -> None:
    made = stock
    environment = {**os.environ, "RESTIC_PASSWORD": "correct horse"}
    child = subprocess.Popen(
        ["restic", "-r", made.repository, "--no-cache", "backup", "--stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    locks = made.repository / "locks"
    end = time.monotonic() + 60
    while not [lock for lock in locks.iterdir() if "-tmp-" not in lock.name]:
        assert time.monotonic() < end
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert list(locks.iterdir())
    inspection.prune(made.config, made.say)
    assert not list(locks.iterdir())


def test_two_runs_at_once_are_refused_by_the_name_of_the_first(stock: Backups) -> None:
    made = stock
    before = made.state
    with working(made.config, made.say):
        said = made.call("--wait=0", "run", expect=1)
    assert f"pid {os.getpid()}" in said
    assert made.state == before


@pytest.fixture
def broken_redis(live: Live) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": 1, "password_file": str(live.secrets / "redis")}


def test_a_store_that_is_down_makes_the_set_incomplete_and_keeps_the_rest(
    backups: Callable[..., Backups], broken_redis: dict[str, Any]
) -> None:
    made = backups(redis=broken_redis)
    said = made.call("run", expect=1)
    assert "is INCOMPLETE" in said
    assert "Redis at 127.0.0.1:1 was not taken" in said
    assert made.state.backup
    assert made.state.backup.result == "incomplete"
    assert made.state.backup.stores == {"qdrant": "ok", "redis": "failed", "postgres": "ok"}
    (only,) = made.sets()
    assert not only["complete"]
    with pytest.raises(BackupError, match="no complete set"):
        drill.run(made.config, made.say)
    # Drilled by name, what it holds proves nothing of what it lacks.
    assert drill.run(made.config, made.say, only["snapshot"]).result == "incomplete"
    assert made.state.drill
    assert made.state.drill.succeeded_at is None
    # A complete one comes beside it, and is what a drill takes.
    made.settings["redis"] = made.live.stores()["redis"]
    complete = backup_run.run(made.config, made.say).snapshot
    assert drill.run(made.config, made.say).snapshot.id == complete


def test_nothing_that_answers_is_a_failure_and_stores_nothing(backups: Callable[..., Backups]) -> None:
    made = backups(qdrant={"urls": ["http://127.0.0.1:1"]}, postgres=None, redis=None)
    with pytest.raises(BackupError, match="Qdrant answers at none of"):
        backup_run.run(made.config, made.say)
    assert made.sets() == []


def test_a_tampered_set_fails_the_drill(stock: Backups, live: Live) -> None:
    made = stock
    drill.run(made.config, made.say)
    # Stored anew with another table's rows and a manifest that does not know: as a broken dump program would.
    with working(made.config, made.say) as work:
        restic = Restic(work)
        snapshot = backup_run.newest(restic, restic.snapshots())
        manifest = inspection.manifest_of(restic, snapshot)
        for piece in manifest.pieces:
            to = work.stage / piece.path
            to.parent.mkdir(parents=True, exist_ok=True)
            with to.open("wb") as file:
                restic.fetch(snapshot, piece, file)
        told = json.loads(manifest.model_dump_json())
        core = next(each for each in told["postgres"]["databases"] if each["name"] == "core")
        next(table for table in core["tables"] if table["name"] == "rows")["checksum"] = "1"
        trades = next(each for each in told["qdrant"]["collections"] if each["name"] == "trades_v1")
        trades["questions"][0]["ids"] = list(reversed(range(10)))
        trades["samples"][0]["sha256"] = "0" * 64
        told["redis"]["samples"]["0"] = dict.fromkeys(told["redis"]["samples"]["0"], "0")
        (work.stage / "manifest.json").write_text(json.dumps(told))
        restic.save(work.stage, complete=True)
    drilled = drill.run(made.config, made.say)
    assert drilled.result == "failed"
    assert "other values" in drilled.problems["postgres"][0]
    assert any("sampled points" in words for words in drilled.problems["qdrant"])
    assert any("searches" in words for words in drilled.problems["qdrant"])
    assert "sampled keys" in drilled.problems["redis"][0]
    assert made.state.drill
    assert made.state.drill.result == "failed"


def test_a_killed_drills_stores_end_with_it_and_the_next_removes_their_data(stock: Backups) -> None:
    made = stock
    killed_at("restoring postgres core", made.command("drill"))

    def working_there() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(made.work):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    wait_for(lambda: working_there() == [], "a store outlived its drill")
    assert (made.work / "drill").exists()
    assert drill.run(made.config, made.say, wait_s=60).result == "ok"
    assert working_there() == []
    assert not (made.work / "drill").exists()
