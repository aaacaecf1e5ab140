"""`plinth collections diff|apply ENV`: the same plan that `plinth up` carries out."""

from __future__ import annotations

import typer

from plinth.cli.common import Env, Json, Yes, ask, console, outputs_of, print_json, stack_of
from plinth.collection_files import collection_specs
from plinth.qdrant import state
from plinth.qdrant.apply import apply as apply_plan
from plinth.qdrant.apply import converge
from plinth.qdrant.client import Qdrant, QdrantError
from plinth.qdrant.plan import Plan, plan, plan_aliases
from plinth.qdrant.render import lines, to_json
from plinth.qdrant.spec import CollectionSpec
from plinth.stack import Stack

commands = typer.Typer(
    help="Collections as code: compare the files with the server, and apply them.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="collections")


@commands.command()
def diff(env: Env, json: Json = False) -> None:
    """Compare the collection files with the server; exit 1 when they differ. Example: plinth collections diff local"""
    stack = stack_of(env)
    specs, client = _specs_and_client(stack)
    with client:
        found = plan(specs, state.read(client))
    if json:
        print_json(to_json(found))
    else:
        _show(found, len(specs))
    if not found.empty:
        raise typer.Exit(1)


@commands.command()
def apply(env: Env, yes: Yes = False) -> None:
    """Bring the server to the collection files, and no more. Example: plinth collections apply local --yes"""
    stack = stack_of(env)
    specs, client = _specs_and_client(stack)
    with client:
        wanted = plan(specs, state.read(client))
        _show(wanted, len(specs))
        if wanted.empty:
            return
        if not wanted.refusals:
            ask("Apply these changes?", yes)
        apply_plan(client, wanted)
        for spec in specs:
            converge(client, spec)
        apply_plan(client, plan_aliases(specs, state.read(client)))
    console.print("Applied.", style="green")


def show_changes(stack: Stack) -> None:
    """What the plan would do to the collections of a running server; nothing where none runs."""
    outputs = stack.outputs()
    if "qdrant" not in outputs:
        return
    specs, client = _specs_and_client(stack)
    try:
        with client:
            found = plan(specs, state.read(client))
    except QdrantError as error:
        console.print(f"The collections could not be compared: {error}")
        return
    if not found.empty:
        console.print(*lines(found), sep="\n")


def _specs_and_client(stack: Stack) -> tuple[list[CollectionSpec], Qdrant]:
    qdrant = outputs_of(stack)["qdrant"]
    client = Qdrant(qdrant["url"], qdrant["api_key"], ca_cert=qdrant.get("ca_cert"))
    return collection_specs(stack.settings, stack.root), client


def _show(found: Plan, count: int) -> None:
    if found.empty:
        console.print(f"{count} collections are as their files say.")
    else:
        console.print(*lines(found), sep="\n")
    if found.unmanaged:
        console.print(f"Left alone, no file declares them: {', '.join(found.unmanaged)}.")
