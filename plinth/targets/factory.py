"""Which target an environment runs on, made from its settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from plinth.errors import UserError
from plinth.paths import Home
from plinth.services import Service, qdrant, webhooks
from plinth.services.project_files import ProjectFiles
from plinth.settings import Settings, TargetName
from plinth.targets.base import Target
from plinth.targets.docker.container_spec import Options
from plinth.targets.docker.engine_api import Daemon
from plinth.targets.docker.limits import refusals
from plinth.targets.docker.target import DockerTarget
from plinth.targets.images import Images, is_built_here
from plinth.targets.local.target import LocalTarget


def images_on(daemon: Daemon, images: Images, wanted: Sequence[Service]) -> Images:
    """The images of an environment, each by the name that an engine has it by or is to pull it by."""
    references = images.references(wanted)
    return images.renamed({key: daemon.local_name(reference) for key, reference in references.items()})


def to_build(reference: str, env: str) -> str:
    """What to do about an image that no registry has."""
    return f"{reference} is not on this engine, and no registry has it: `plinth images build {env}` makes it."


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


def target_of(
    settings: Settings, paths: Home, project: ProjectFiles, images: Images, wanted: Sequence[Service]
) -> Target:
    """The target of an environment; refuses what it cannot run before anything is touched."""
    if settings.target is TargetName.kubernetes:
        # What it needs takes a second or two to import, which the other targets do not pay.
        from plinth.targets.kubernetes.target import KubernetesTarget

        return KubernetesTarget(paths.env, settings, project, images, wanted)
    if settings.target is TargetName.docker:
        options = Options(settings.published, settings.docker.nofile, settings.docker.nproc)
        with Daemon(settings.docker.host) as daemon:
            _refuse(refusals(wanted, daemon.capacity()))
            chosen = images_on(daemon, images, wanted)
            left_out = _unbuilt(daemon, chosen, wanted, paths.env)
        return DockerTarget(paths.env, project.root, chosen, wanted, options, daemon.address, left_out)
    target = LocalTarget(paths, project.root, settings.bind_address, wanted)
    storage = Path(target.volume("qdrant", "storage"))
    qdrant.refuse_other_engine(storage, embedded_serves=target.is_substituted("qdrant"))
    if webhooks.receivers(settings):
        _refuse(webhooks.version_refusals(settings, target.version("alertmanager")))
    return target
