"""What is made sure of before a deploy touches the engine: it runs, the ports are free, the images are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from plinth.errors import UserError
from plinth.targets.docker.daemon import Daemon
from plinth.targets.ports import refuse_taken


def make_sure(
    daemon: Daemon,
    stack: str,
    ports: Mapping[str, int],
    address: str,
    images: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    """Raise :class:`UserError` for what stands in the way; pull the images that are missing.

    ``ports`` are by settings key, ``images`` references by key; ``say`` hears of each pull.
    """
    daemon.version()
    if daemon.is_here:
        _refuse_ports(daemon, stack, ports, address)
    for reference in sorted(set(images.values())):
        if not daemon.has_image(reference):
            say(f"pulling {reference}")
            daemon.pull(reference)


def _refuse_ports(daemon: Daemon, stack: str, ports: Mapping[str, int], address: str) -> None:
    published = daemon.published()
    for key, port in ports.items():
        container, owner = published.get(port, ("", stack))
        if owner != stack:
            raise UserError(
                f"Port {port} (plinth:{key}) is published by the container {container}"
                + (f" of the stack '{owner}'" if owner else "")
                + "; stop it, or set another port."
            )
    refuse_taken({key: port for key, port in ports.items() if port not in published}, address, ())
