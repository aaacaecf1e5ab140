"""What plain `pulumi up` runs: the same program, which nothing has made sure of anything for."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pulumi

from plinth.deployment.automation import settings_within
from plinth.deployment.checkpoint import Checkpoint, Unsupported, made_and_begun, read, state_file
from plinth.deployment.environment_plan import plan_environment
from plinth.deployment.program import deploy
from plinth.deployment.pulumi_environment import BACKEND_URL, PROJECT, local_backend
from plinth.errors import UserError
from plinth.paths import Home, home, last_deployed
from plinth.settings import Settings, TargetName
from plinth.targets.docker.engine_api import Daemon
from plinth.targets.docker.leftovers import RECORDED, Recorded
from plinth.targets.docker.preflight import left_behind, refuse_left


def program(root: Path, env: str) -> None:
    """Refuse what `plinth up` refuses or mends before a run, as a sentence; then the composition."""
    place = home(root, env)
    try:
        settings = settings_within(root, env)
        if settings.target is TargetName.docker:
            _refuse_left(settings, place)
        plan = plan_environment(settings, root, place)
        if settings.target is TargetName.kubernetes:
            from plinth.kubernetes.open_forwards import cluster_of, open_ways

            open_ways(cluster_of(settings), place, plan.kubernetes_target.routes())
        deploy(plan, last_deployed(place))
    except UserError as error:
        # Pulumi prints any other with its traceback.
        raise pulumi.RunError(str(error)) from error


def _refuse_left(settings: Settings, place: Home) -> None:
    """Refuse what a killed run left on the engine; a state elsewhere cannot be read here, and is left to Pulumi."""
    if os.environ.get(BACKEND_URL, local_backend(place)) != local_backend(place):
        return
    with suppress(Unsupported), Daemon(settings.docker.host) as daemon:
        state = read(state_file(place.backend, PROJECT, place.env)) or Checkpoint({})
        recorded = Recorded(*made_and_begun(state.resources(), state.pending(), RECORDED))
        refuse_left(left_behind(daemon, place.env, recorded), place.env)
