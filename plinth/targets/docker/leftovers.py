"""What a run that was killed left on the engine, and config files that never got into their volume.

Pulumi writes down what it begins to make, and the id once it is made. A kill between the two leaves a thing on the
engine that no record has: the next run would make it again, and the engine refuses its name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from plinth.errors import UserError
from plinth.targets.content_digest import digest
from plinth.targets.docker.engine_api import Daemon
from plinth.targets.docker.naming import CONFIG
from plinth.targets.docker.objects import Container, Network

NEVER_STARTED = "created"
# What of the state's resources is on the engine by a name that the next run would take.
CONTAINER = "docker:index/container:Container"
NETWORK = "docker:index/network:Network"
RECORDED = (CONTAINER, NETWORK)


@dataclass(frozen=True)
class Recorded:
    """What the environment's state has: the ids of what was made, the names of what was begun."""

    ids: Collection[str] = ()
    begun: Collection[str] = ()


@dataclass(frozen=True)
class Leftovers:
    """What stands in the way of the next run.

    ``doubtful`` containers run, or ran, and no record has them: they may be another project's of the same name.
    """

    containers: tuple[Container, ...] = ()
    networks: tuple[Network, ...] = ()
    doubtful: tuple[Container, ...] = ()

    def refusal(self) -> UserError:
        """Return the error for the doubtful containers, with what to do about them."""
        names = [container.name for container in self.doubtful]
        one = len(names) == 1
        return UserError(
            f"{'The container' if one else 'The containers'} {', '.join(names)} {'is' if one else 'are'} on the engine "
            "and in no record of this environment: a run that was cut short made them, or another project with an "
            f"environment of this name. If they are not: `docker rm -f {' '.join(names)}` (their data "
            "is in their volumes), then run up again."
        )


def leftovers(containers: Iterable[Container], networks: Iterable[Network], recorded: Recorded) -> Leftovers:
    """Return what to remove, and what to ask the user about.

    A container that never started holds nothing, recorded or not; one that a run had begun to create is this project's.
    """
    removed, doubtful = [], []
    for container in containers:
        known = container.id in recorded.ids
        if container.is_carrier and known:
            continue
        if container.state == NEVER_STARTED or (not known and container.name in recorded.begun):
            removed.append(container)
        elif not known:
            doubtful.append(container)
    strange = [network for network in networks if network.id not in recorded.ids]
    return Leftovers(tuple(removed), tuple(strange), tuple(doubtful))


def remove(daemon: Daemon, leftover: Leftovers) -> list[str]:
    """Remove leftovers, the doubtful ones too; gives their names."""
    containers = (*leftover.containers, *leftover.doubtful)
    for container in containers:
        daemon.remove(container, force=True)
    for network in leftover.networks:
        daemon.remove_network(network)
    return [*(container.name for container in containers), *(network.name for network in leftover.networks)]


def spoiled_carriers(daemon: Daemon, stack: str, recorded: Recorded) -> list[Container]:
    """Return the config loaders whose volume does not match its name's digest: a copy was refused, or interrupted.

    The volume's name ends in a digest of its files. Pulumi treats a loader that could not be filled as complete as soon
    as it has refreshed its state; a loader that is gone is created again.
    """
    carriers = [one for one in daemon.containers(stack) if one.is_carrier and one.id in recorded.ids]
    return [carrier for carrier in carriers if not _is_whole(daemon, stack, carrier)]


def _is_whole(daemon: Daemon, stack: str, carrier: Container) -> bool:
    volume = daemon.mounted(carrier, CONFIG)
    return digest(daemon.files(carrier, CONFIG), stack) == volume.rpartition("-")[2]
