"""What is made sure of before a deploy touches the engine.

It runs, the ports are free, the images are there, and nothing of a killed run is in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from plinth.errors import UserError
from plinth.services import Service
from plinth.system.ports import refuse_taken
from plinth.targets.docker.container_spec import LOOPBACK
from plinth.targets.docker.engine_api import Daemon
from plinth.targets.docker.leftovers import Leftovers, Recorded, leftovers, remove, spoiled_carriers
from plinth.targets.docker.limits import refused_limits, warnings
from plinth.targets.images import is_built_here


@dataclass(frozen=True)
class Demand:
    """What a stack asks of an engine.

    ``ports`` are by settings key, ``published`` addresses by service, ``images`` references by key, ``limits`` the
    kernel's bounds of each container by their names.
    """

    stack: str
    services: Sequence[Service] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    published: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)


def make_sure(
    daemon: Daemon,
    demand: Demand,
    recorded: Recorded,
    say: Callable[[str], None],
    may_remove: Callable[[Leftovers], bool],
) -> None:
    """Raise :class:`UserError` for what stands in the way; pull the images that are missing.

    ``say`` hears of what is done; ``may_remove`` asks a person about containers that may be another project's.
    """
    leftover = left_behind(daemon, demand.stack, recorded, may_remove)
    if daemon.is_here:
        _refuse_ports(daemon, demand)
    for reference in sorted(set(demand.images.values())):
        # One that is built here and is missing leaves out those that need it.
        if not is_built_here(reference) and not daemon.has_image(reference):
            say(f"pulling {reference}")
            daemon.pull(reference)
    clear(daemon, leftover, say)
    _refuse_untold_limits(daemon, demand)
    for carrier in spoiled_carriers(daemon, demand.stack, recorded):
        say(f"{carrier.name} is made again: its config files are not whole")
        daemon.remove(carrier)
    for warning in warnings(demand.services, daemon.capacity()):
        say(f"! {warning}")


def left_behind(
    daemon: Daemon, stack: str, recorded: Recorded, may_remove: Callable[[Leftovers], bool] = lambda _: False
) -> Leftovers:
    """Return what killed runs left; raises :class:`UserError` for another project's possible containers."""
    leftover = leftovers(daemon.containers(stack), daemon.networks(stack), recorded)
    if leftover.doubtful and not may_remove(leftover):
        raise leftover.refusal()
    return leftover


def refuse_left(leftover: Leftovers, stack: str) -> None:
    """Raise :class:`UserError` for what killed runs left, where nothing can be removed."""
    left = [*(one.name for one in leftover.containers), *(one.name for one in leftover.networks)]
    if left:
        raise UserError(
            f"A run that was cut short left {', '.join(left)} on the engine unfinished: `plinth up {stack}` removes "
            "what is left and goes on from there; `pulumi up` can be used again after it."
        )


def clear(daemon: Daemon, leftover: Leftovers, say: Callable[[str], None]) -> None:
    """Remove what killed runs left."""
    if removed := remove(daemon, leftover):
        say(f"removed what an earlier run left unfinished: {', '.join(removed)}")


def _refuse_untold_limits(daemon: Daemon, demand: Demand) -> None:
    """Refuse the kernel's bounds that the engine cannot give; what a container of the stack has, it can."""
    image = next((name for name in demand.images.values() if daemon.has_image(name)), None)
    running = next((one for one in daemon.containers(demand.stack) if one.state == "running"), None)
    given = daemon.limits(running) if running else {}
    if image is None or all(given.get(name, 0) >= bound for name, bound in demand.limits.items()):
        return
    if refusal := refused_limits(daemon, demand.stack, image, demand.limits):
        raise UserError(refusal)


def _refuse_ports(daemon: Daemon, demand: Demand) -> None:
    published = daemon.published()
    for key, port in demand.ports.items():
        container, owner = published.get(port, ("", demand.stack))
        if owner != demand.stack:
            raise UserError(
                f"Port {port} (plinth:{key}) is published by the container {container}"
                + (f" of the stack '{owner}'" if owner else "")
                + "; stop it, or set another port."
            )
    for key, port in demand.ports.items():
        if port not in published:
            # A key ends in the service and what of it: `monitoring.grafana.port`.
            refuse_taken({key: port}, demand.published.get(key.split(".")[-2], LOOPBACK), ())
