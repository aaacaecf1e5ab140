"""`plinth images list|build|pull|save|load`: what an environment runs, for sites with a mirror or with no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from plinth.cli.common import Env, Json, print_json, stack_of
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.load.image_datasets import file_name, sets_of
from plinth.load.slo import Data, load_slo
from plinth.settings import TargetName
from plinth.system.atomic_files import READABLE, write_whole
from plinth.system.console import console
from plinth.system.output_files import output_files
from plinth.targets.docker import plinth_image
from plinth.targets.docker.engine_api import Daemon
from plinth.targets.factory import to_build
from plinth.targets.images import PINS, is_built_here, pins, with_digests, without_digest

commands = typer.Typer(
    help="The container images of an environment: list, build Plinth's own, pull, save to a file, load from one.",
    no_args_is_help=True,
)
File = Annotated[Path, typer.Argument(help="A tar archive of images.", show_default=False)]

Wheels = Annotated[
    Path | None,
    typer.Option(help="A directory of the lock file's wheels, where the engine reaches no package index."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="images")


@commands.command("list")
def list_(env: Env, json: Json = False) -> None:
    """The images that an environment runs, pinned. Example: plinth images list dev"""
    references = _environment(env).plan.image_references
    if json:
        print_json(references)
        return
    for key, reference in references.items():
        console.print(f"{key:<20} {reference}")


@commands.command()
def build(env: Env, wheels: Wheels = None) -> None:
    """Build Plinth's own image, for its exporter, backups and the load gate. Example: plinth images build dev"""
    stack = _environment(env)
    with Daemon(stack.settings.docker.host) as daemon:
        daemon.version()
        sets = sets_of(load_slo(stack.root / stack.settings.slo.file))
        data = _data(sets, stack.home.cache)
        content = plinth_image.Content(stack.root, stack.settings.qdrant.version, sets, data, wheels)
        reference = plinth_image.build(daemon, stack.plan.images, content, _say)
    console.print(f"Built {reference}; `plinth up {env}` runs it.")


@commands.command()
def pin(env: Env) -> None:
    """Write the digests that the registries have today into config/images.yaml. Example: plinth images pin dev"""
    stack = _environment(env)
    pinned = {key: reference for key, reference in pins(stack.root).items() if not is_built_here(reference)}
    with Daemon(stack.settings.docker.host) as daemon:
        daemon.version()
        digests = {key: daemon.digest_of(without_digest(reference)) for key, reference in pinned.items()}
    changed = {key: digest for key, digest in digests.items() if not pinned[key].endswith(f"@{digest}")}
    file = stack.root / PINS
    write_whole(file, with_digests(file.read_text(), digests), READABLE)
    for key, digest in changed.items():
        console.print(f"{key:<20} {digest}")
    console.print(f"{len(digests)} image(s) asked for, {len(changed)} digest(s) changed in {PINS}.")


@commands.command()
def pull(env: Env) -> None:
    """Fetch every image that is not on the engine yet. Example: plinth images pull dev"""
    stack = _environment(env)
    references = stack.plan.image_references
    with Daemon(stack.settings.docker.host) as daemon:
        daemon.version()
        unbuilt = _unbuilt(daemon, references)
        for reference in _each(references):
            name = daemon.local_name(reference)
            there = daemon.has_image(name)
            if not there and reference not in unbuilt:
                daemon.pull(name)
            word = "there" if there else "no" if reference in unbuilt else "pulled"
            console.print(f"{word:<6}  {reference}")
    if unbuilt:
        raise UserError(to_build(unbuilt[0], env), exit_code=1)


@commands.command()
def save(env: Env, file: File) -> None:
    """Write every image to one file, for a site without a network. Example: plinth images save dev images.tar"""
    stack = _environment(env)
    references = stack.plan.image_references
    output_files({"The file": file})
    with Daemon(stack.settings.docker.host) as daemon:
        daemon.version()
        for reference in _unbuilt(daemon, references):
            raise UserError(to_build(reference, env), exit_code=1)
        for reference in _each(references):
            name = daemon.local_name(reference)
            if not daemon.has_image(name):
                daemon.pull(name)
            # A file carries tags alone: what was pulled by its digest has none yet.
            if name != without_digest(reference):
                daemon.tag(name, reference)
        daemon.save([without_digest(reference) for reference in _each(references)], file)
    console.print(
        f"Saved {len(_each(references))} image(s) to {file}; `plinth images load {env} {file}` takes them in."
    )


@commands.command()
def load(env: Env, file: File) -> None:
    """Take the images of a file that `save` wrote. Example: plinth images load dev images.tar"""
    stack = _environment(env)
    references = stack.plan.image_references
    with Daemon(stack.settings.docker.host) as daemon:
        daemon.version()
        daemon.load(file)
        lacking = [reference for reference in _each(references) if not daemon.has_image(daemon.local_name(reference))]
    if lacking:
        raise UserError(
            f"{file} was loaded and does not hold {', '.join(lacking)}; save it anew with the settings of '{env}'.",
            exit_code=1,
        )
    console.print(f"Every image of '{env}' is there.")


def _data(sets: Sequence[Data], cache: Path) -> dict[str, bytes]:
    """The load gate's data sets for the image; what cannot be had here is left out, and said."""
    # What embeds is heavy, and no other command of images needs it.
    from plinth.load.dataset import dataset
    from plinth.load.dataset_files import packed

    found = {}
    for wanted in sets:
        try:
            found[file_name(wanted)] = packed(dataset(wanted, cache, _say))
        except UserError as error:
            _say(f"! the image gets no data set {file_name(wanted)}, which load profiles ask for: {error}")
    return found


def _say(words: str) -> None:
    console.print(f"  {words}")


def _unbuilt(daemon: Daemon, references: dict[str, str]) -> list[str]:
    return [found for found in _each(references) if is_built_here(found) and not daemon.has_image(found)]


def _each(references: dict[str, str]) -> list[str]:
    return sorted(set(references.values()))


def _environment(env: str) -> Stack:
    stack = stack_of(env)
    if stack.settings.target is TargetName.local:
        raise UserError(f"'{env}' has target local, which runs no images; name an environment of containers.")
    return stack
