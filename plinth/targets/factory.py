"""Which target an environment runs on, made from its settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plinth.errors import UserError
from plinth.paths import Home
from plinth.programs.spec import OWN_IMAGE
from plinth.services import Service, qdrant, services, webhooks
from plinth.settings import Settings, TargetName
from plinth.targets.base import Target
from plinth.targets.docker.container_spec import Options
from plinth.targets.docker.engine_api import Daemon
from plinth.targets.docker.limits import refusals
from plinth.targets.docker.target import DockerTarget
from plinth.targets.images import Images, images, is_built_here
from plinth.targets.local.target import LocalTarget

if TYPE_CHECKING:
    from plinth.targets.kubernetes.target import KubernetesTarget


def image_references(settings: Settings, root: Path) -> dict[str, str]:
    """The images of an environment by key, with its mirror and its own choices; Plinth's own for the load gate too."""
    chosen = images_of(settings, root)
    found = chosen.references(services(settings, root))
    return found if settings.managed.qdrant_url else {**found, OWN_IMAGE: chosen.of(OWN_IMAGE)}


def images_on(daemon: Daemon, settings: Settings, root: Path) -> Images:
    """The images of an environment, each by the name that an engine has it by or is to pull it by."""
    chosen = images_of(settings, root)
    references = chosen.references(services(settings, root))
    return chosen.renamed({key: daemon.local_name(reference) for key, reference in references.items()})


def to_build(reference: str, env: str) -> str:
    """What to do about an image that no registry has."""
    return f"{reference} is not on this engine, and no registry has it: `plinth images build {env}` makes it."


def leaving_hosts(settings: Settings, root: Path, home: Home, was: int) -> list[str]:
    """The host names among their peers of the Qdrant nodes that a deploy would take away; ``was`` is their number."""
    if settings.target is TargetName.local or settings.managed.qdrant_url or settings.qdrant.nodes >= was:
        return []
    before = settings.model_copy(update={"qdrant": settings.qdrant.model_copy(update={"nodes": was})})
    target = target_of(before, root, home, services(before, root))
    peers = [target.peer("qdrant", node, "p2p") for node in range(settings.qdrant.nodes, was)]
    return [address.rpartition(":")[0] for address in peers]


def images_of(settings: Settings, root: Path) -> Images:
    """Where the images of an environment come from."""
    if settings.target is TargetName.docker:
        return images(root, settings.docker.registry_mirror, settings.docker.images)
    return images(root, settings.kubernetes.registry_mirror, settings.kubernetes.images)


def _unbuilt(daemon: Daemon, chosen: Images, wanted: Sequence[Service], env: str) -> dict[str, str]:
    """The optional services whose image is built here and has not been yet, and why they are left out."""
    built = {service.name: chosen.reference(service.program) for service in wanted if service.optional}
    return {
        name: f"its image {reference} is not on this engine; `plinth images build {env}` makes it, then run up again"
        for name, reference in built.items()
        if is_built_here(reference) and not daemon.has_image(reference)
    }


def _refuse(reasons: Iterable[str]) -> None:
    if sentences := list(reasons):
        raise UserError(" ".join(sentences))


def target_of(settings: Settings, root: Path, home: Home, wanted: Sequence[Service]) -> Target:
    """The target of an environment; refuses what it cannot run before anything is touched."""
    if settings.target is TargetName.local:
        target = LocalTarget(home, root, settings.bind_address, wanted)
        storage = Path(target.volume("qdrant", "storage"))
        qdrant.refuse_other_engine(storage, embedded_serves=target.is_substituted("qdrant"))
        if webhooks.receivers(settings):
            _refuse(webhooks.version_refusals(settings, target.version("alertmanager")))
        return target
    _refuse(webhooks.image_refusals(settings, images_of(settings, root).of("alertmanager")))
    if settings.target is TargetName.docker:
        options = Options(settings.published, settings.docker.nofile, settings.docker.nproc)
        with Daemon(settings.docker.host) as daemon:
            _refuse(refusals(wanted, daemon.capacity()))
            chosen = images_on(daemon, settings, root)
            left_out = _unbuilt(daemon, chosen, wanted, home.env)
        return DockerTarget(home.env, root, chosen, wanted, options, daemon.address, left_out)
    return kubernetes_target(settings, root, home)


def kubernetes_target(settings: Settings, root: Path, home: Home) -> KubernetesTarget:
    """The kubernetes target of an environment."""
    # What it needs takes a second or two to import, which the other targets do not pay.
    from plinth.targets.kubernetes.target import KubernetesTarget

    return KubernetesTarget(home.env, settings, root, images_of(settings, root), services(settings, root))


def open_reach(settings: Settings, root: Path, home: Home) -> None:
    """Make the addresses of a deployed environment reachable from this machine, while this process runs."""
    if settings.target is TargetName.kubernetes:
        from plinth.kubernetes.open_forwards import open_ways

        open_ways(settings, home, kubernetes_target(settings, root, home).routes())
