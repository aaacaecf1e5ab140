"""The options that a migration has, whatever its source: each said once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from plinth.cli.common import Json
from plinth.errors import UserError
from plinth.migrate.migration import RECALL_FLOOR
from plinth.migrate.transfer import Pace

PATIENCE_S = 120.0


class Distance(StrEnum):
    """How vectors are compared."""

    cosine = "cosine"
    euclid = "euclid"
    dot = "dot"
    manhattan = "manhattan"


To = Annotated[str, typer.Option("--to", help="An environment, or a server's address (key in QDRANT_API_KEY).")]
Collection = Annotated[str, typer.Option(help="A collection file's name or alias; without one, as the source says.")]
Fixed = Annotated[list[str] | None, typer.Option("--set", help="field=value, for every point: such as its tenant.")]
Metric = Annotated[Distance | None, typer.Option("--distance", help="Where the source does not say it.")]
StateDir = Annotated[Path | None, typer.Option("--state", help="Where checkpoint, rejects and report are kept.")]
Restart = Annotated[bool, typer.Option("--restart", help="Forget the checkpoint and begin anew.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")]
Cutover = Annotated[str | None, typer.Option(help="Point this alias to the collection when all is equal.")]
Streams = Annotated[int, typer.Option(min=1, max=16, help="Writers at once.")]
Patience = Annotated[float, typer.Option(min=0, help="Seconds to wait for a server that is away or busy.")]
MaxRejects = Annotated[int, typer.Option(min=0, help="Stop when more rows than this are rejected.")]
Floor = Annotated[float, typer.Option("--recall-floor", min=0, max=1, help="The least recall of a usual search.")]


@dataclass(frozen=True)
class Asked:
    """What every migration is told."""

    to: str
    collection: str
    fixed: dict[str, str]
    distance: Distance | None
    state: Path | None
    restart: bool
    dry_run: bool
    cutover: str | None
    pace: Pace
    patience_s: float
    floor: float
    json: bool


def asked_of(
    to: To,
    collection: Collection,
    fixed: Fixed = None,
    distance: Metric = None,
    state: StateDir = None,
    restart: Restart = False,
    dry_run: DryRun = False,
    cutover: Cutover = None,
    streams: Streams = 2,
    patience: Patience = PATIENCE_S,
    max_rejects: MaxRejects = 1000,
    recall_floor: Floor = RECALL_FLOOR,
    json: Json = False,
) -> Asked:
    """The options as one; raises :class:`UserError` where one is wrong."""
    return Asked(
        to,
        collection,
        _fixed(fixed),
        distance,
        state,
        restart,
        dry_run,
        cutover,
        Pace(streams, max_rejects),
        patience,
        recall_floor,
        json,
    )


def _fixed(said: list[str] | None) -> dict[str, str]:
    parts = [one.partition("=") for one in said or ()]
    wrong = next((name for name, equals, _ in parts if not (name and equals)), None)
    if wrong is not None:
        raise UserError(f"--set {wrong}: expected field=value, such as --set tenant_id=acme.")
    return {name: value for name, _, value in parts}
