"""`plinth collections diff|apply|drop|restore`: the plan that `plinth up` carries out, and what it never does."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plinth.cli.common import Env, Json, Yes, ask, outputs_of, print_json, stack_of
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.qdrant import server_state
from plinth.qdrant.apply import apply as apply_plan
from plinth.qdrant.apply import converge
from plinth.qdrant.client import Qdrant, QdrantError, collection_path
from plinth.qdrant.plan import Plan, SwitchAliases, plan, plan_aliases
from plinth.qdrant.render import lines, to_json
from plinth.qdrant.spec import CollectionSpec
from plinth.system.console import console, line

if TYPE_CHECKING:
    from plinth.backup.config import QdrantStore

commands = typer.Typer(
    help="Collections as code: compare the files with the server, and apply them.", no_args_is_help=True
)
Recreate = Annotated[
    list[str] | None,
    typer.Option(
        "--recreate",
        help="Make this collection anew by its file, empty, after a snapshot; several times for several.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="collections")


@commands.command()
def diff(env: Env, json: Json = False) -> None:
    """Compare the collection files with the server; exit 1 when they differ. Example: plinth collections diff local"""
    stack = stack_of(env)
    specs, client = _specs_and_client(stack)
    with client:
        found = plan(specs, server_state.read(client))
    if json:
        print_json(to_json(found))
    else:
        _show(found, len(specs), env)
    if not found.empty:
        raise typer.Exit(1)


@commands.command()
def apply(env: Env, recreate: Recreate = None, yes: Yes = False) -> None:
    """Bring the server to the collection files, and no more. Example: plinth collections apply local --yes"""
    stack = stack_of(env)
    if recreate:
        _apply_anew(stack, env, tuple(dict.fromkeys(recreate)), yes)
        return
    specs, client = _specs_and_client(stack)
    with client:
        wanted = plan(specs, server_state.read(client))
        _show(wanted, len(specs), env)
        if wanted.empty:
            return
        if not wanted.refusals:
            ask("Apply these changes?", yes)
        _carry_out(client, specs, wanted)


def _carry_out(client: Qdrant, specs: Sequence[CollectionSpec], changes: Plan) -> None:
    apply_plan(client, changes)
    for spec in specs:
        converge(client, spec)
    apply_plan(client, plan_aliases(specs, server_state.read(client)))
    console.print("Applied.", style="green")


def _apply_anew(stack: Stack, env: str, names: Sequence[str], yes: bool) -> None:
    """Apply, with these collections made anew; what reads them by an alias finds them empty, and nothing else."""
    specs = stack.plan.collections
    declared = [spec.name for spec in specs]
    if unknown := [name for name in names if name not in declared]:
        raise UserError(f"No file declares a collection '{unknown[0]}'; there are {', '.join(declared) or 'none'}.")
    with _qdrant_of(stack) as (store, client):
        before = server_state.read(client)
        replaced = [name for name in names if name in before.collections]
        kept = {name: each for name, each in before.collections.items() if name not in replaced}
        aliases = {alias: target for alias, target in before.aliases.items() if target not in replaced}
        changes = plan(specs, replace(before, collections=kept, aliases=aliases))
        _show(changes, len(specs), env)
        if replaced and not changes.refusals:
            counted = ", ".join(f"{name} with its {_count(client, name)} points" for name in replaced)
            ask(f"Drop {counted} from '{env}', after a snapshot, and make it again empty?", yes)
            for name in replaced:
                saved = _save(stack, store, name)
                client.call("DELETE", collection_path(name))
                console.print(
                    f"The snapshot of {name} is {saved}; once it is dropped, `{_restoring(saved, env)}` makes it again."
                )
        _carry_out(client, specs, changes)
        _lead_again(client, {alias: target for alias, target in before.aliases.items() if target in replaced})


def _count(client: Qdrant, collection: str) -> int:
    counted: int = client.call("POST", f"{collection_path(collection)}/points/count", {"exact": False})["count"]
    return counted


def _save(stack: Stack, store: QdrantStore, collection: str) -> Path:
    """Take a snapshot of a collection that is to be dropped; its directory."""
    from plinth.backup.stores.qdrant import collection_archive

    return collection_archive.save(store, collection, stack.home.data / "dropped", _say)


def _restoring(saved: Path, env: str) -> str:
    return shlex.join(("plinth", "collections", "restore", str(saved), env))


def _lead_again(client: Qdrant, aliases: Mapping[str, str]) -> None:
    """Aliases that no file declares went with their collection."""
    there = client.aliases()
    if gone := {alias: target for alias, target in aliases.items() if alias not in there}:
        apply_plan(client, Plan((SwitchAliases(gone),)))


@commands.command()
def drop(
    collection: Annotated[str, typer.Argument(help="A collection by its own name.", show_default=False)],
    env: Env,
    drop_aliases: Annotated[
        bool, typer.Option("--drop-aliases", help="Drop it although aliases lead to it, and them too.")
    ] = False,
    no_snapshot: Annotated[bool, typer.Option("--no-snapshot", help="Take no snapshot first.")] = False,
    yes: Yes = False,
) -> None:
    """Take a snapshot of a collection, and drop it. Example: plinth collections drop trades_v1 local"""
    stack = stack_of(env)
    with _qdrant_of(stack) as (store, client):
        _require_droppable(client, collection, drop_aliases=drop_aliases)
        if any(spec.name == collection for spec in stack.plan.collections):
            console.print(
                f"A file declares {collection}: the next `plinth up {env}` makes it again, empty. "
                "Remove the file to be rid of it."
            )
        without = " without a snapshot" if no_snapshot else ""
        ask(f"Drop {collection} with its {_count(client, collection)} points from '{env}'{without}?", yes)
        saved = None if no_snapshot else _save(stack, store, collection)
        client.call("DELETE", collection_path(collection))
    console.print(line((f"{collection} is dropped.", "green")))
    if saved:
        console.print(f"Its snapshot is {saved}; `{_restoring(saved, env)}` makes it again.")


@commands.command()
def restore(
    snapshot: Annotated[Path, typer.Argument(help="A directory that `drop` has written.", show_default=False)],
    env: Env,
) -> None:
    """Make a dropped collection again. Example: plinth collections restore DIRECTORY local"""
    from plinth.backup.stores.qdrant import collection_archive

    stack = stack_of(env)
    with _qdrant_of(stack) as (store, _):
        aliases = collection_archive.restore(store, snapshot, _say)
    behind = f", behind {', '.join(aliases)}" if aliases else ""
    console.print(line((f"{collection_archive.load(snapshot).collection.name} is restored{behind}.", "green")))


@contextmanager
def _qdrant_of(stack: Stack) -> Iterator[tuple[QdrantStore, Qdrant]]:
    """Every node, and the service as a whole."""
    from plinth.backup.environment_config import qdrant_of
    from plinth.system.managed_process import terminable

    outputs = outputs_of(stack)
    about = outputs["qdrant"]
    with (
        terminable(),
        qdrant_of(stack.settings, outputs, stack.home) as store,
        Qdrant(about["url"], about["api_key"], ca_cert=about.get("ca_cert")) as client,
    ):
        yield store, client


def _require_droppable(client: Qdrant, collection: str, *, drop_aliases: bool) -> None:
    """Refuse a name that is no collection's, and a collection that somebody reads by an alias."""
    there, aliases = client.collections(), client.aliases()
    if collection not in there:
        raise UserError(
            f"'{collection}' is an alias of {aliases[collection]}; name the collection itself."
            if collection in aliases
            else f"There is no collection '{collection}'; there are {', '.join(there) or 'none'}.",
        )
    leading = sorted(alias for alias, target in aliases.items() if target == collection)
    if leading and not drop_aliases:
        raise UserError(
            f"{collection} is read by its alias {', '.join(leading)}; point it at another collection first, "
            "or add --drop-aliases.",
            exit_code=1,
        )


def show_changes(stack: Stack) -> None:
    """What the plan would do to the collections of a running server; nothing where none runs."""
    outputs = stack.outputs()
    if "qdrant" not in outputs:
        return
    specs, client = _specs_and_client(stack)
    try:
        with client:
            found = plan(specs, server_state.read(client))
    except QdrantError as error:
        console.print(f"The collections could not be compared: {error}")
        return
    if not found.empty:
        console.print(*lines(found), sep="\n")


def _specs_and_client(stack: Stack) -> tuple[Sequence[CollectionSpec], Qdrant]:
    qdrant = outputs_of(stack)["qdrant"]
    client = Qdrant(qdrant["url"], qdrant["api_key"], ca_cert=qdrant.get("ca_cert"))
    return stack.plan.collections, client


def _show(found: Plan, count: int, env: str) -> None:
    if found.empty:
        console.print(f"{count} collections are as their files say.")
    else:
        console.print(*lines(found), sep="\n")
    if found.unmanaged:
        console.print(
            f"Not managed, for no file declares them; their data stays: {', '.join(found.unmanaged)}. "
            f"`plinth collections drop COLLECTION {env}` drops one."
        )


def _say(words: str) -> None:
    console.print(f"  {words}")
