"""`plinth status ENV`."""

from __future__ import annotations

import os
import time
from importlib import import_module
from threading import Thread
from typing import Annotated, Any

import typer
from rich.table import Table

from plinth.backup.freshness import BackupStatus
from plinth.cli.backup_status import backup_status, with_backups
from plinth.cli.common import Env, Json, outputs_of, print_json, stack_of
from plinth.deployment.stack import Stack
from plinth.health.probes import CLIENTS, HTTP_CLIENT
from plinth.health.status import Policy, Status, check, dependencies, remembered
from plinth.qdrant.cluster import describe
from plinth.qdrant.cluster_observer import observe_others
from plinth.settings import Settings, TargetName
from plinth.system.console import console, line

PEERS_TIMEOUT_S = 3.0
# Of an `up` that has just deployed.
PATIENCE_S, PAUSE_S = 30.0, 1.0
# Where a probe makes a way into the cluster first; and after an `up`, which asks what serves and not how fast.
PATIENT = {"PROBE_TIMEOUT_MS": "2000"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(
    env: Env,
    json: Json = False,
    cache: Annotated[bool, typer.Option(help="Take a result of the last PROBE_CACHE_SEC seconds.")] = True,
) -> None:
    """Is it well? Every service probed; exit 0 only when all are ready. Example: plinth status local"""
    stack = stack_of(env)
    _load_clients(stack.settings)
    outputs = outputs_of(stack)
    backups = backup_status(stack, outputs)
    found = with_backups(probe(stack, outputs, cache=cache), backups)
    peers = _peers(outputs, found)
    if json:
        print_json(
            found.to_json()
            | ({"cluster": peers} if peers else {})
            | ({"backups": backups.to_json()} if backups else {})
        )
    else:
        _show(found)
        _show_peers(peers)
        _show_backups(backups)
    if not found.ready:
        raise typer.Exit(1)


def _load_clients(settings: Settings) -> None:
    """Import what asks the stores while the state's key is derived, which takes as long and another processor."""
    stores = (("postgres", settings.postgres.enabled), ("redis", settings.redis.enabled))
    wanted = [HTTP_CLIENT, *(CLIENTS[name] for name, enabled in stores if enabled)]
    Thread(target=lambda: [import_module(client) for client in wanted], daemon=True).start()


def probe(stack: Stack, outputs: dict[str, Any], *, cache: bool, patient: bool = False) -> Status:
    """The status of a deployed environment; ``cache`` False asks anew, ``patient`` waits longer for an answer."""
    defaults = PATIENT if patient or stack.settings.target is TargetName.kubernetes else {}
    policy = Policy.from_environment(defaults | os.environ)
    wanted = dependencies(outputs)
    path = stack.home.cache / f"status-{stack.env}.json"
    if not cache:
        policy = Policy(policy.timeout_ms, policy.retries, 0)
    names = [dependency.name for dependency in wanted]
    return remembered(path, policy, names, lambda: check(f"plinth/{stack.env}", wanted, policy))


def show(stack: Stack, outputs: dict[str, Any]) -> bool:
    """Probe anew and print; whether all is ready.

    Asked again for a while: each service has just been ready for its gate, and on a busy machine the first answers
    come late.
    """
    end = time.monotonic() + PATIENCE_S
    while True:
        found = with_backups(probe(stack, outputs, cache=False, patient=True), backup_status(stack, outputs))
        if found.ready or time.monotonic() >= end:
            break
        time.sleep(PAUSE_S)
    _show(found)
    return found.ready


def _peers(outputs: dict[str, Any], found: Status) -> list[dict[str, Any]]:
    """The peers of a cluster as the first node that answers sees them; none where one node runs alone."""
    where = outputs["qdrant"]
    answering = {result.url for result in found.deps.values() if result.ok}
    for url in where.get("nodes", {}).values():
        # One that has not answered its probe is not waited for again.
        if url in answering and (
            seen := observe_others([url], where["api_key"], PEERS_TIMEOUT_S, where.get("ca_cert"))
        ):
            return describe(seen[0])
    return []


def _show_peers(peers: list[dict[str, Any]]) -> None:
    if not peers:
        return
    table = Table(title="peers", title_justify="left")
    for column in ("peer", "id", "role", "replicas", "not active"):
        table.add_column(column)
    for peer in peers:
        role = "leader" if peer["leader"] else "follower"
        table.add_row(
            peer["peer"], str(peer["id"]), role, str(peer["replicas"]), ", ".join(peer["not_active"]) or "none"
        )
    console.print(table)


def _show_backups(backups: BackupStatus | None) -> None:
    if backups is None:
        return
    table = Table(title="backups", title_justify="left")
    for column in ("", "result", "age", ""):
        table.add_column(column)
    for row in backups.rows():
        table.add_row(*row)
    console.print(table)


def _show(found: Status) -> None:
    table = Table(title=f"{found.service}: {'ready' if found.ready else 'NOT ready'}", title_justify="left")
    for column in ("service", "state", "latency", ""):
        table.add_column(column, justify="right" if column == "latency" else "left")
    for name, result in found.deps.items():
        state = ("left out", "dim") if result.skipped else ("ok", "green") if result.ok else ("failed", "red")
        latency = f"{result.latency_ms:.1f} ms" if result.latency_ms is not None else ""
        table.add_row(name, line(state), latency, result.detail or result.url or "")
    console.print(table)
