"""One environment, planned: what its settings and the project's files come to, each part derived once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from plinth.paths import Home
from plinth.programs.spec import OWN_IMAGE
from plinth.qdrant.spec import CollectionSpec
from plinth.services import Service, services
from plinth.services.project_files import ProjectFiles, read_project_files
from plinth.settings import Settings
from plinth.targets.images import Images, image_catalog

if TYPE_CHECKING:
    from plinth.targets.base import Target
    from plinth.targets.kubernetes.target import KubernetesTarget


@dataclass(frozen=True)
class EnvironmentPlan:
    """What one command knows of an environment before it touches anything.

    ``services`` are those that the settings turn on, ``running`` those of them that ``target`` can run. It finds their
    programs or asks the engine once, when it is first needed: a command that reads collections needs neither.
    """

    settings: Settings
    paths: Home
    project: ProjectFiles
    images: Images

    @property
    def root(self) -> Path:
        """The project's directory."""
        return self.project.root

    @property
    def collections(self) -> Sequence[CollectionSpec]:
        """The collections, with what the settings change in them."""
        return self.project.collections

    @cached_property
    def services(self) -> Sequence[Service]:
        """Every enabled service."""
        return services(self.settings, self.project)

    @cached_property
    def target(self) -> Target:
        """What runs the services; raises :class:`plinth.errors.UserError` for what it cannot run."""
        # What the targets need takes a second or two to import.
        from plinth.targets.factory import target_of

        return target_of(self.settings, self.paths, self.project, self.images, self.services)

    @property
    def kubernetes_target(self) -> KubernetesTarget:
        """The target of an environment on Kubernetes."""
        return cast("KubernetesTarget", self.target)

    @cached_property
    def running(self) -> Sequence[Service]:
        """The services without those that the target leaves out."""
        return services(self.settings, self.project, self.target.left_out)

    @property
    def image_references(self) -> dict[str, str]:
        """The images by key, with the environment's mirror and choices; Plinth's own for the load gate too."""
        references = self.images.references(self.services)
        own = {} if self.settings.managed.qdrant_url else {OWN_IMAGE: self.images.of(OWN_IMAGE)}
        return references | own

    def with_settings(self, settings: Settings) -> EnvironmentPlan:
        """The same environment by other settings: secrets in the clear, other keys, another number of nodes."""
        return replace(self, settings=settings)


def plan_environment(settings: Settings, root: Path, paths: Home) -> EnvironmentPlan:
    """Read the project's files and plan an environment; raises :class:`plinth.errors.UserError` for a file at fault."""
    return EnvironmentPlan(settings, paths, read_project_files(settings, root), image_catalog(settings, root))
