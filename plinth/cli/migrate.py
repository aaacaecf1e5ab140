"""`plinth migrate SOURCE --to ENV --collection C`: from another store into a collection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from plinth.cli.common import Json, outputs_of, print_json, progress_console, stack_of
from plinth.cli.migration_options import PATIENCE_S, Asked, Collection, Floor, StateDir, To, asked_of
from plinth.errors import UserError
from plinth.migrate import connection, source_registry
from plinth.migrate.checkpoint import State
from plinth.migrate.dry_run import dry_run
from plinth.migrate.migration import RECALL_FLOOR, Migration
from plinth.migrate.progress import telling
from plinth.migrate.report import lines
from plinth.migrate.retrying_client import PatientQdrant
from plinth.migrate.sources.chroma import ChromaOptions
from plinth.migrate.sources.files import FileOptions
from plinth.migrate.sources.pg_connect import DSN_VARIABLE
from plinth.migrate.sources.postgres import PostgresOptions
from plinth.migrate.sources.qdrant import QdrantOptions
from plinth.migrate.target import cut_over, wanted
from plinth.migrate.verify import mend
from plinth.qdrant.client import Qdrant
from plinth.qdrant.spec import CollectionSpec
from plinth.system.console import console

commands = typer.Typer(
    help="Move points from Postgres, Chroma, another Qdrant or files into a collection, resumable and compared.",
    no_args_is_help=True,
)


Opened = dict[str, Any]


def source(opening: Callable[..., Opened]) -> Callable[..., None]:
    """A command of a source: its own options say how it is opened, and those that every migration has come beside."""
    own, shared = (signature(each, eval_str=True).parameters for each in (opening, asked_of))

    @wraps(opening)
    def command(**given: Any) -> None:
        _migrate(opening(**{name: given[name] for name in own}), asked_of(**{name: given[name] for name in shared}))

    told = [option.replace(kind=Parameter.KEYWORD_ONLY) for option in (*own.values(), *shared.values())]
    command.__signature__ = Signature(told)  # type: ignore[attr-defined]
    command.__annotations__ = {option.name: option.annotation for option in told}
    return command


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="migrate")


@commands.command()
@source
def postgres(
    table: Annotated[str, typer.Argument(help="schema.table", show_default=False)],
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
) -> Opened:
    """Postgres with pgvector, Supabase.

    Example: plinth migrate postgres public.documents --to local --collection docs
    """
    options = PostgresOptions(
        table,
        source_registry.absolute(dsn_file) if dsn_file else None,
        tuple(key or ()),
        vector,
        tuple(sparse or ()),
        tuple(skip or ()),
        where,
    )
    return source_registry.kept("postgres", options)


@commands.command()
@source
def chroma(
    location: Annotated[str, typer.Argument(help="A server's address, or Chroma's directory.", show_default=False)],
    source_collection: Annotated[str, typer.Option(help="The collection in Chroma.")],
    tenant: Annotated[str, typer.Option(help="Chroma's tenant.")] = "default_tenant",
    database: Annotated[str, typer.Option(help="Chroma's database.")] = "default_database",
    document_field: Annotated[str, typer.Option(help="The payload field of the document.")] = "document",
    id_field: Annotated[str, typer.Option(help="The payload field of Chroma's id.")] = "id",
    uri_field: Annotated[str, typer.Option(help="The payload field of the URI.")] = "uri",
) -> Opened:
    """Chroma: a server (token in CHROMA_API_KEY), or the directory of its client.

    Example: plinth migrate chroma ./chroma_data --source-collection notes --to local --collection notes
    """
    if not connection.is_address(location):
        location = source_registry.absolute(location)
    options = ChromaOptions(location, source_collection, tenant, database, document_field, id_field, uri_field)
    return source_registry.kept("chroma", options)


@commands.command()
@source
def qdrant(
    url: Annotated[str, typer.Argument(help="The address of the server to read.", show_default=False)],
    source_collection: Annotated[str, typer.Option(help="The collection there, or its alias.")],
) -> Opened:
    """Another Qdrant (its key in PLINTH_SOURCE_API_KEY).

    Example: plinth migrate qdrant http://old:6333 --source-collection docs --to local --collection docs
    """
    return source_registry.kept("qdrant", QdrantOptions(url, source_collection))


@commands.command()
@source
def file(
    path: Annotated[Path, typer.Argument(help="A .jsonl, .parquet or .npy file.", show_default=False)],
    key: Annotated[str, typer.Option(help="The field that no two records share.")] = "id",
    vector: Annotated[str, typer.Option(help="The field of the vectors.")] = "vector",
    payload: Annotated[Path | None, typer.Option(help="For .npy: JSONL, a line for each row.")] = None,
) -> Opened:
    """JSONL, Parquet or NumPy.

    Example: plinth migrate file docs.parquet --distance cosine --to local --collection docs
    """
    options = FileOptions(
        source_registry.absolute(path), key, vector, source_registry.absolute(payload) if payload else None
    )
    return source_registry.kept("file", options)


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
    spec = connection.find_spec(specs, collection)
    kept = State(connection.state_directory(to, spec.name if spec else collection, state))
    checkpoint = kept.load()
    if checkpoint is None:
        raise UserError(f"There is no checkpoint in {kept.directory}; name its --state, or migrate first.")
    distance = next((one["distance"] for one in checkpoint.plan["vectors"].values() if one["distance"]), None)
    with ExitStack() as stack:
        stack.enter_context(kept.held())
        stack.enter_context(client)
        source = stack.enter_context(source_registry.open_source(checkpoint.source))
        described = source.describe()
        target = replace(wanted(collection, described, spec, distance), fixed=checkpoint.plan["set"])
        migration = Migration(source, client, target, kept, checkpoint.source, to, described)
        with telling(progress_console(json=json)) as told:
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
        source = stack.enter_context(source_registry.open_source(opened_by))
        described = source.describe()
        distance = asked.distance.value.capitalize() if asked.distance else None
        target = wanted(asked.collection, described, connection.find_spec(specs, asked.collection), distance)
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
                console.print(*shown.lines(), sep="\n")
            return
        kept = State(connection.state_directory(asked.to, target.name, asked.state))
        stack.enter_context(kept.held())
        migration = Migration(source, client, target, kept, opened_by, asked.to, described)
        with telling(progress_console(json=asked.json)) as told:
            for note in described.notes:
                told.words(note)
            for name, reason in described.left_out.items():
                told.words(f"{name} is left out: {reason}.")
            if asked.restart:
                migration.restart(told)
            made = migration.run(asked.pace, told, asked.floor)
        _show(made, asked.json)
        if made["reasons"]:
            raise typer.Exit(1)
        if asked.cutover:
            _cut_over(client, asked.cutover, asked.to, target.name, asked.json)


def _target(to: str, patience_s: float) -> tuple[Qdrant, Sequence[CollectionSpec]]:
    if connection.is_address(to):
        return connection.at_address(to, patience_s)
    stack = stack_of(to)
    qdrant = outputs_of(stack)["qdrant"]
    client = PatientQdrant(qdrant["url"], qdrant["api_key"], patience_s, qdrant.get("ca_cert"))
    return client, stack.plan.collections


def _cut_over(client: Qdrant, alias: str, to: str, collection: str, json: bool = False) -> None:
    was = cut_over(client, alias, collection)
    out = progress_console(json=json)
    out.print(f"'{alias}' is {collection} now.")
    if was and was != collection:
        out.print(f"Back: plinth migrate cutover {alias} --to {to} --collection {was}")


def _show(made: dict[str, Any], json: bool) -> None:
    if json:
        print_json(made)
    else:
        for line in lines(made):
            console.print(line)
