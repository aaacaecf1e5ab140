"""What is made sure of before a deploy touches the engine: it runs, the ports are free, the images are there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from plinth.errors import UserError
from plinth.images import is_built_here
from plinth.targets.docker.daemon import Daemon
from plinth.targets.docker.declared import LOOPBACK
from plinth.targets.ports import refuse_taken


def make_sure(
    daemon: Daemon,
    stack: str,
    ports: Mapping[str, int],
    published: Mapping[str, str],
    images: Mapping[str, str],
    recorded: Collection[str],
    say: Callable[[str], None],
) -> None:
    """Raise :class:`UserError` for what stands in the way; pull the images that are missing.

    ``ports`` are by settings key, ``published`` addresses by service, ``images`` references by key, ``recorded`` the
    ids of containers in Pulumi's state; ``say`` hears of each pull.
    """
    daemon.version()
    _clear_unfinished(daemon, stack, recorded)
    if daemon.is_here:
        _refuse_ports(daemon, stack, ports, published)
    for reference in sorted(set(images.values())):
        # One that is built here and is missing leaves out those that need it.
        if not is_built_here(reference) and not daemon.has_image(reference):
            say(f"pulling {reference}")
            daemon.pull(reference)


def _clear_unfinished(daemon: Daemon, stack: str, recorded: Collection[str]) -> None:
    """Remove what an earlier run made and could not start; refuse what runs and no run recorded.

    A container that never started holds nothing. One that runs may be another project's of the same name.
    """
    for container in daemon.containers(stack):
        if container.state == "created":
            daemon.remove(container)
        elif container.id not in recorded:
            raise UserError(
                f"The container {container.name} is on the engine and in no record of this environment: a run that was "
                "cut short made it, or another project with an environment of this name. If it is not another "
                f"project's: `docker rm -f {container.name}` (its data is in its volumes), then run up again."
            )


def _refuse_ports(daemon: Daemon, stack: str, ports: Mapping[str, int], published: Mapping[str, str]) -> None:
    taken = daemon.published()
    for key, port in ports.items():
        container, owner = taken.get(port, ("", stack))
        if owner != stack:
            raise UserError(
                f"Port {port} (plinth:{key}) is published by the container {container}"
                + (f" of the stack '{owner}'" if owner else "")
                + "; stop it, or set another port."
            )
    for key, port in ports.items():
        if port not in taken:
            # A key ends in the service and what of it: `monitoring.grafana.port`.
            refuse_taken({key: port}, published.get(key.split(".")[-2], LOOPBACK), ())
