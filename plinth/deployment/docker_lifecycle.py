"""What lies under an environment on a Docker engine: what must be so before a deploy, what a killed run left."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

import typer

from plinth.deployment.preflight import ports
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.load.image_datasets import sets_of
from plinth.load.slo import load_slo
from plinth.printable import visible
from plinth.programs.spec import OWN_IMAGE
from plinth.system.console import console, line
from plinth.targets.docker import plinth_image, resources
from plinth.targets.docker import preflight as before
from plinth.targets.docker.engine_api import Daemon
from plinth.targets.docker.leftovers import CONTAINER, RECORDED, Leftovers, Recorded
from plinth.targets.docker.naming import LOAD_LABEL
from plinth.targets.factory import images_on

# Of the log of a service that does not get ready.
LAST_LINES = 3


def make_sure(stack: Stack, say: Callable[[str], None]) -> None:
    """Refuse a deploy that the engine stands in the way of; clear away what a killed run left."""
    with Daemon(stack.settings.docker.host) as daemon:
        daemon.version()
        demand, recorded = _demand(stack, daemon), _recorded(stack)
        before.make_sure(daemon, demand, recorded, say, _may_remove)
        if recorded.begun:
            # What was begun is removed; else it would count as begun for ever.
            stack.forget_begun()
        image = demand.images.get(OWN_IMAGE)
        sets = sets_of(load_slo(stack.root / stack.settings.slo.file))
        if image and plinth_image.is_stale(daemon, image, stack.root, sets):
            stale = f" {image} was built of other sources than these; `plinth images build {stack.env}` builds it anew."
            console.print(line("  ", ("!", "yellow"), stale))


def release(stack: Stack, say: Callable[[str], None]) -> None:
    """Remove what no resource knows of, and what would hold volumes and networks that a `down` removes."""
    with Daemon(stack.settings.docker.host) as daemon:
        for container in daemon.containers(stack.env, LOAD_LABEL):
            say(f"ending the load run {container.name}")
            daemon.end(container.id)
        before.clear(daemon, before.left_behind(daemon, stack.env, _recorded(stack), _may_remove), say)


def last_words(stack: Stack, service: str) -> str:
    """What a service printed last, and how to read more."""
    container = f"plinth-{stack.env}-{service}"
    lines: list[str] = []
    # An engine that does not answer any more is no reason to hide why the run failed.
    with suppress(UserError), Daemon(stack.settings.docker.host) as daemon:
        lines = [visible(text) for text in daemon.last_lines(container, LAST_LINES)]
    printed = f" It printed last: {' / '.join(lines)}" if lines else ""
    return f"`docker logs --tail 50 {container}` shows its log.{printed}"


def carriers(stack: Stack) -> list[str]:
    """The URNs of the containers that only bring config files into their volume."""
    return [urn for urn in stack.urns(CONTAINER) if urn.endswith(resources.CARRIER_SUFFIX)]


def _demand(stack: Stack, daemon: Daemon) -> before.Demand:
    settings = stack.settings
    plan, running = stack.plan, stack.plan.services
    return before.Demand(
        stack.env,
        running,
        ports(settings),
        settings.published,
        images_on(daemon, plan.images, running).references(running),
        {"nofile": settings.docker.nofile, "nproc": settings.docker.nproc},
    )


def _recorded(stack: Stack) -> Recorded:
    return Recorded(*stack.recorded(RECORDED))


def _may_remove(leftover: Leftovers) -> bool:
    if not sys.stdin.isatty():
        return False
    names = ", ".join(container.name for container in leftover.doubtful)
    return typer.confirm(
        f"{names}: on the engine and in no record of this environment, made by a run that was cut short or by another "
        "project with an environment of this name. Remove them? Their data stays in its volumes."
    )
