"""Run backups, checks and drills by cron expressions in UTC, one at a time.

Jobs that were missed while the scheduler was down run at its next start; a failed backup is retried soon.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cronsim import CronSim
from prometheus_client import CollectorRegistry, Gauge

from plinth.backup import drill, inspection
from plinth.backup import run as backup_run
from plinth.backup.config import Config, Schedule
from plinth.backup.session import Say
from plinth.backup.wait_limits import PATIENCE_S
from plinth.errors import UserError
from plinth.status_files.backup_runs import Kind, Run, State, StateUnreadable, read
from plinth.system.bounded_server import serve_metrics
from plinth.system.timestamps import date, past

log = logging.getLogger("plinth.backup")

RETRY_AFTER = timedelta(minutes=30)
# The status file may change at any time: a person may run a backup by hand.
LOOK_AGAIN_S = 20.0


def due(cron: str, since: datetime, last: Run | None, *, retried: bool) -> datetime:
    """Return when a job is next due: the first time of its cron expression after its last start, or ``since``."""
    began = datetime.fromtimestamp(last.attempted_at, UTC) if last else since
    planned = next(CronSim(cron, began))
    if retried and last and last.result == "failed":
        return min(planned, began + RETRY_AFTER)
    return planned


def plan(schedule: Schedule, since: datetime, state: State, now: datetime | None = None) -> dict[Kind, datetime]:
    """Return when each job is due: now, where its last run has a future date. A check or drill needs a backup."""
    now = now or datetime.now(UTC)
    ahead, state = state.ahead(now.timestamp()), state.as_of(now.timestamp())
    found: dict[Kind, datetime] = {"backup": due(schedule.backup, since, state.backup, retried=True)}
    if state.backup and state.backup.succeeded_at:
        found["check"] = due(schedule.check, since, state.check, retried=False)
        found["drill"] = due(schedule.drill, since, state.drill, retried=False)
    return {kind: now if kind in ahead else at for kind, at in found.items()}


def keep(config: Config, say: Say) -> None:
    """Run the schedule until it is stopped."""
    since = _since(config.directory)
    registry = CollectorRegistry()
    gauge = Gauge("plinth_schedule_next_run_timestamp_seconds", "When a job is due.", ["job"], registry=registry)
    if config.listen:
        serve_metrics(config.listen.host, config.listen.port, registry)
    jobs: dict[Kind, Callable[[], object]] = {
        "backup": lambda: backup_run.run(config, say, wait_s=PATIENCE_S),
        "check": lambda: inspection.check(config, say, wait_s=PATIENCE_S),
        "drill": lambda: drill.run(config, say, wait_s=PATIENCE_S),
    }
    told: dict[Kind, datetime] = {}
    while True:
        state = _state(config)
        for kind, moment in state.ahead(time.time()).items():
            log.warning("the last %s is dated %s, ahead of this clock: it counts as none", kind, date(moment))
        planned = plan(config.schedule, since, state)
        for kind, at in planned.items():
            gauge.labels(kind).set(at.timestamp())
        if planned != told:
            say("next: " + ", ".join(f"{kind} {at:%Y-%m-%d %H:%M:%S} UTC" for kind, at in planned.items()))
            told = planned
        kind = min(planned, key=planned.__getitem__)
        seconds = planned[kind].timestamp() - time.time()
        if seconds > 0:
            time.sleep(min(seconds, LOOK_AGAIN_S))
            continue
        _do(kind, jobs[kind])


def _do(kind: Kind, job: Callable[[], object]) -> None:
    try:
        job()
        return
    except UserError as error:
        log.error("%s: %s", kind, error)
    except Exception:
        # The next run may succeed, and the status file says that this one did not.
        log.exception("%s failed", kind)
    # A job that failed before it could record a result would be due again at once.
    time.sleep(LOOK_AGAIN_S)


def _state(config: Config) -> State:
    try:
        return read(config.state)
    except StateUnreadable as error:
        log.warning("%s", error)
        return State()


def _since(directory: Path) -> datetime:
    """Return when this schedule first started.

    A machine that is off at night must not wait forever for its first run.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "scheduled-since"
    now = time.time()
    try:
        since = past(float(file.read_text()), now)
    except (OSError, ValueError):
        since = None
    if since is None:
        since = now
        file.write_text(f"{now}\n")
    return datetime.fromtimestamp(since, UTC)
