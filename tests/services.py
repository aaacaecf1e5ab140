"""The services of some settings, with the files of this repository."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from plinth.deployment.environment_plan import EnvironmentPlan, plan_environment
from plinth.paths import Home
from plinth.services import Service, services
from plinth.services.project_files import read_project_files
from plinth.settings import Settings
from tests.conftest import ROOT


def services_of(settings: Settings, left_out: Collection[str] = ()) -> list[Service]:
    return services(settings, read_project_files(settings, ROOT), left_out)


def plan_of(settings: Settings, directory: Path, env: str = "t") -> EnvironmentPlan:
    """The plan of an environment whose own files are below a directory."""
    return plan_environment(settings, ROOT, Home(directory / ".plinth", directory / ".plinth" / env))
