"""What backups left behind, read where each target keeps it, and what follows for whether an environment is ready."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx

from plinth.backup.freshness import BackupStatus, problem
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.health.status import Result, Status
from plinth.load.slo import load_slo
from plinth.services.backup import PROGRAM, container_of
from plinth.services.exporters import STATE_DIRECTORY
from plinth.settings import TargetName
from plinth.status_files.backup_runs import FILE, KINDS, Run, State, parse, read
from plinth.system.http_client import client_for
from plinth.system.tls import Pair, trusting

NAME = "backup"
TIMEOUT_S = 5.0
JOBS = {"backup": "run", "check": "check", "drill": "drill"}


def backup_status(stack: Stack, outputs: Mapping[str, Any]) -> BackupStatus | None:
    """The last backup, check and drill of an environment; None where it has no backups, or they are left out."""
    if "backup" not in outputs or os.environ.get("ENABLE_BACKUP", "").lower() in ("false", "0", "no"):
        return None
    try:
        state, reason = _state(stack, outputs)
    except UserError as error:
        return BackupStatus(State(), str(error))
    promised_h = load_slo(stack.root / "load" / "slo.yaml").promises.backup_age_h
    return BackupStatus(state, reason or problem(state, stack.settings.backup.schedule, promised_h, time.time()))


def with_backups(status: Status, backups: BackupStatus | None) -> Status:
    """A status that is not ready where the backups are not to be relied on."""
    if backups is None:
        return status
    known = status.deps.get(NAME, Result(enabled=True, ok=True, skipped=False))
    if known.skipped or not known.ok or not backups.problem:
        return replace(status, deps={**status.deps, NAME: known})
    return replace(status, deps={**status.deps, NAME: replace(known, ok=False, detail=backups.problem)})


def _state(stack: Stack, outputs: Mapping[str, Any]) -> tuple[State, str | None]:
    """The state, and why there can be no further backups."""
    target = stack.settings.target
    if target is TargetName.local:
        return read(stack.home.backup_state / FILE), None
    return _of_container(stack) if target is TargetName.docker else _of_cluster(stack, outputs)


def _of_container(stack: Stack) -> tuple[State, str | None]:
    from plinth.targets.docker.engine_api import Daemon
    from plinth.targets.docker.execution import read_file

    container = container_of(stack.env)
    with Daemon(stack.settings.docker.host) as daemon:
        if container not in [each.name for each in daemon.containers(stack.env)]:
            return State(), f"the container {container} is not there; `plinth up {stack.env}` makes it again"
        for directory in (STATE_DIRECTORY, PROGRAM.container.volumes["work"]):
            where = f"{directory}/{FILE}"
            if (text := read_file(daemon, container, where)) is not None:
                return parse(text, f"{where} in {container}"), None
    return State(), None


def _of_cluster(stack: Stack, outputs: Mapping[str, Any]) -> tuple[State, str | None]:
    """What the exporter tells; where there is none, when the CronJobs last succeeded."""
    # What is needed of a cluster takes a second to import, which the other targets do not pay.
    from plinth.exporter.metrics import state_of
    from plinth.kubernetes.jobs import Jobs

    jobs = Jobs(stack.cluster)
    cronjobs = {kind: jobs.cronjob(f"backup-{job}") for kind, job in JOBS.items()}
    cronjob, reason = cronjobs["backup"], None
    if cronjob is None:
        reason = f"the CronJob backup-run is not there; `plinth up {stack.env}` makes it again"
    elif cronjob["spec"].get("suspend"):
        reason = "the CronJob backup-run is suspended; set its `suspend` to false"
    exporter = outputs.get("exporters", {}).get("plinth")
    if exporter:
        return state_of(_page(exporter)), reason
    runs = {kind: run for kind in KINDS if (known := cronjobs[kind]) and (run := _run_of(known.get("status") or {}))}
    return State.model_validate(runs), reason


def _run_of(status: Mapping[str, Any]) -> Run | None:
    """A run as far as a CronJob knows it; those by hand are not among them."""
    moments = {key: _moment(status.get(key)) for key in ("lastScheduleTime", "lastSuccessfulTime")}
    began, succeeded = moments["lastScheduleTime"], moments["lastSuccessfulTime"]
    if began is None:
        return None
    if succeeded is not None and succeeded >= began:
        return Run(attempted_at=began, succeeded_at=succeeded, result="ok", duration_s=succeeded - began)
    result = "incomplete" if status.get("active") else "failed"
    return Run(attempted_at=began, succeeded_at=succeeded, result=result, duration_s=0.0)


def _moment(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None


def _page(exporter: Mapping[str, Any]) -> str:
    client = Pair(exporter["client_cert"], exporter["client_key"]) if "client_key" in exporter else None
    context = trusting(exporter.get("ca_cert"), client) if exporter["url"].startswith("https:") else None
    try:
        with client_for(exporter["url"], timeout=TIMEOUT_S, verify=context) as http:
            return http.get(exporter["url"]).raise_for_status().text
    except httpx.HTTPError as error:
        raise UserError(
            f"the exporter, which knows of the backups, does not answer ({type(error).__name__})"
        ) from error
