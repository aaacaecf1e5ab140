"""`plinth migrate SOURCE --to ENV --collection C`: from another store into a collection."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from plinth.cli.common import Json, console, outputs_of, print_json, stack_of
from plinth.deploy import collection_specs
from plinth.errors import UserError
from plinth.migrate import places
from plinth.migrate.checkpoint import State
from plinth.migrate.copying import Pace
from plinth.migrate.migration import RECALL_FLOOR, Migration
from plinth.migrate.patient import PatientQdrant
from plinth.migrate.plan import dry_run
from plinth.migrate.report import lines
from plinth.migrate.sources.chroma import ChromaOptions
from plinth.migrate.sources.files import FileOptions
from plinth.migrate.sources.pg_connect import DSN_VARIABLE
from plinth.migrate.sources.postgres import PostgresOptions
from plinth.migrate.sources.qdrant import QdrantOptions
from plinth.migrate.target import cut_over, wanted
from plinth.migrate.told import telling
from plinth.migrate.verify import mend
from plinth.qdrant.client import Qdrant
from plinth.qdrant.spec import CollectionSpec

PATIENCE_S = 120.0

commands = typer.Typer(
    help="Move points from Postgres, Chroma, another Qdrant or files into a collection, resumable and compared.",
    no_args_is_help=True,
)


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
    """What every source's command is told."""

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


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="migrate")


@commands.command()
def postgres(
    table: Annotated[str, typer.Argument(help="schema.table", show_default=False)],
    to: To,
    collection: Collection,
    dsn_file: Annotated[
        Path | None, typer.Option(help=f"A file with the connection string; else {DSN_VARIABLE}, PGHOST and the like.")
    ] = None,
    key: Annotated[list[str] | None, typer.Option(help="A column of the key; the primary key by default.")] = None,
    vector: Annotated[str | None, typer.Option(help="The vectors' column, where there are several.")] = None,
    sparse: Annotated[
        list[str] | None, typer.Option(help="A sparsevec column, as a sparse vector of its name.")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(help="A column to leave out of the payload.")] = None,
    where: Annotated[str | None, typer.Option(help="A condition in SQL: only rows for which it is true.")] = None,
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
) -> None:
    """Postgres with pgvector, Supabase.

    Example: plinth migrate postgres public.documents --to local --collection docs
    """
    options = PostgresOptions(
        table,
        str(dsn_file) if dsn_file else None,
        tuple(key or ()),
        vector,
        tuple(sparse or ()),
        tuple(skip or ()),
        where,
    )
    pace = Pace(streams, max_rejects)
    asked = Asked(
        to, collection, _fixed(fixed), distance, state, restart, dry_run, cutover, pace, patience, recall_floor, json
    )
    _migrate(places.kept("postgres", options), asked)


@commands.command()
def chroma(
    location: Annotated[str, typer.Argument(help="A server's address, or Chroma's directory.", show_default=False)],
    to: To,
    collection: Collection,
    source_collection: Annotated[str, typer.Option(help="The collection in Chroma.")],
    tenant: Annotated[str, typer.Option(help="Chroma's tenant.")] = "default_tenant",
    database: Annotated[str, typer.Option(help="Chroma's database.")] = "default_database",
    document_field: Annotated[str, typer.Option(help="The payload field of the document.")] = "document",
    id_field: Annotated[str, typer.Option(help="The payload field of Chroma's id.")] = "id",
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
) -> None:
    """Chroma: a server (token in CHROMA_API_KEY), or the directory of its client.

    Example: plinth migrate chroma ./chroma_data --source-collection notes --to local --collection notes
    """
    options = ChromaOptions(location, source_collection, tenant, database, document_field, id_field)
    pace = Pace(streams, max_rejects)
    asked = Asked(
        to, collection, _fixed(fixed), distance, state, restart, dry_run, cutover, pace, patience, recall_floor, json
    )
    _migrate(places.kept("chroma", options), asked)


@commands.command()
def qdrant(
    url: Annotated[str, typer.Argument(help="The address of the server to read.", show_default=False)],
    to: To,
    collection: Collection,
    source_collection: Annotated[str, typer.Option(help="The collection there, or its alias.")],
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
) -> None:
    """Another Qdrant (its key in PLINTH_SOURCE_API_KEY).

    Example: plinth migrate qdrant http://old:6333 --source-collection docs --to local --collection docs
    """
    pace = Pace(streams, max_rejects)
    asked = Asked(
        to, collection, _fixed(fixed), distance, state, restart, dry_run, cutover, pace, patience, recall_floor, json
    )
    _migrate(places.kept("qdrant", QdrantOptions(url, source_collection)), asked)


@commands.command()
def file(
    path: Annotated[Path, typer.Argument(help="A .jsonl, .parquet or .npy file.", show_default=False)],
    to: To,
    collection: Collection,
    key: Annotated[str, typer.Option(help="The field that no two records share.")] = "id",
    vector: Annotated[str, typer.Option(help="The field of the vectors.")] = "vector",
    payload: Annotated[Path | None, typer.Option(help="For .npy: JSONL, a line for each row.")] = None,
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
) -> None:
    """JSONL, Parquet or NumPy.

    Example: plinth migrate file docs.parquet --distance cosine --to local --collection docs
    """
    options = FileOptions(str(path), key, vector, str(payload) if payload else None)
    pace = Pace(streams, max_rejects)
    asked = Asked(
        to, collection, _fixed(fixed), distance, state, restart, dry_run, cutover, pace, patience, recall_floor, json
    )
    _migrate(places.kept("file", options), asked)


@commands.command()
def verify(
    to: To,
    collection: Collection,
    state: StateDir = None,
    mending: Annotated[bool, typer.Option("--mend", help="First write anew what is missing or differs.")] = False,
    recall_floor: Floor = RECALL_FLOOR,
    json: Json = False,
) -> None:
    """Compare a finished migration with its source once more.

    Example: plinth migrate verify --to local --collection docs
    """
    client, specs = _target(to, PATIENCE_S)
    spec = places.find_spec(specs, collection)
    kept = State(places.state_directory(to, spec.name if spec else collection, state))
    checkpoint = kept.load()
    if checkpoint is None:
        raise UserError(f"There is no checkpoint in {kept.directory}; name its --state, or migrate first.")
    distance = next((one["distance"] for one in checkpoint.plan["vectors"].values() if one["distance"]), None)
    with ExitStack() as stack:
        stack.enter_context(kept.held())
        stack.enter_context(client)
        source = stack.enter_context(places.open_source(checkpoint.source))
        described = source.describe()
        target = replace(wanted(collection, described, spec, distance), fixed=checkpoint.plan["set"])
        migration = Migration(source, client, target, kept, checkpoint.source, to, described)
        with telling(_beside(json)) as told:
            if mending:
                rows = mend(source, client, target, checkpoint, lambda read: told.compared(read, checkpoint.rows))
                told.words(f"{rows} rows were written anew.")
            made = migration.verify(checkpoint, told, recall_floor)
    _show(made, json)
    if made["reasons"]:
        raise typer.Exit(1)


@commands.command()
def cutover(
    alias: Annotated[str, typer.Argument(help="The name that applications use.", show_default=False)],
    to: To,
    collection: Annotated[str, typer.Option(help="The collection it is to name from now on.")],
) -> None:
    """Point an alias to a collection in one call; also the way back.

    Example: plinth migrate cutover docs --to local --collection docs_v2
    """
    client, _ = _target(to, PATIENCE_S)
    with client:
        _cut_over(client, alias, to, collection)


def _migrate(opened_by: dict[str, Any], asked: Asked) -> None:
    client, specs = _target(asked.to, asked.patience_s)
    with ExitStack() as stack:
        stack.enter_context(client)
        source = stack.enter_context(places.open_source(opened_by))
        described = source.describe()
        distance = asked.distance.value.capitalize() if asked.distance else None
        target = wanted(asked.collection, described, places.find_spec(specs, asked.collection), distance)
        target = replace(target, fixed=asked.fixed)
        if opened_by["kind"] == "qdrant" and (opened_by["url"].rstrip("/"), described.identity["collection"]) == (
            client.url,
            target.name,
        ):
            raise UserError(f"{target.name} would be copied into itself; name another --collection.")
        if asked.dry_run:
            shown = dry_run(source, described, client, target)
            if asked.json:
                print_json(shown.to_json())
            else:
                console.print(shown.render(), markup=False, highlight=False)
            return
        kept = State(places.state_directory(asked.to, target.name, asked.state))
        stack.enter_context(kept.held())
        migration = Migration(source, client, target, kept, opened_by, asked.to, described)
        with telling(_beside(asked.json)) as told:
            for note in described.notes:
                told.words(note)
            if asked.restart:
                migration.restart(told)
            made = migration.run(asked.pace, told, asked.floor)
        _show(made, asked.json)
        if made["reasons"]:
            raise typer.Exit(1)
        if asked.cutover:
            _cut_over(client, asked.cutover, asked.to, target.name, asked.json)


def _fixed(said: list[str] | None) -> dict[str, str]:
    parts = [one.partition("=") for one in said or ()]
    wrong = next((name for name, equals, _ in parts if not (name and equals)), None)
    if wrong is not None:
        raise UserError(f"--set {wrong}: expected field=value, such as --set tenant_id=acme.")
    return {name: value for name, _, value in parts}


def _target(to: str, patience_s: float) -> tuple[Qdrant, list[CollectionSpec]]:
    if places.is_address(to):
        return places.at_address(to, patience_s)
    stack = stack_of(to)
    qdrant = outputs_of(stack)["qdrant"]
    client = PatientQdrant(qdrant["url"], qdrant["api_key"], patience_s, qdrant.get("ca_cert"))
    return client, collection_specs(stack.settings, stack.root)


def _beside(json: bool) -> Console:
    """Where progress goes: JSON has the standard output for itself."""
    return Console(stderr=True, soft_wrap=True) if json else console


def _cut_over(client: Qdrant, alias: str, to: str, collection: str, json: bool = False) -> None:
    was = cut_over(client, alias, collection)
    out = _beside(json)
    out.print(f"'{alias}' is {collection} now.", highlight=False)
    if was and was != collection:
        out.print(f"Back: plinth migrate cutover {alias} --to {to} --collection {was}", highlight=False)


def _show(made: dict[str, Any], json: bool) -> None:
    if json:
        print_json(made)
    else:
        for line in lines(made):
            console.print(line, markup=False, highlight=False)
