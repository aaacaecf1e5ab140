"""One environment's Pulumi stack, as every command sees it. Pulumi itself is imported and started on use."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plinth.deployment.checkpoint import (
    MASK,
    Checkpoint,
    Unsupported,
    WrongPassphrase,
    made_and_begun,
    read,
    state_file,
)
from plinth.deployment.pulumi_environment import PROJECT, is_local, passphrase
from plinth.errors import UserError
from plinth.paths import Home, home
from plinth.settings import Settings, TargetName
from plinth.settings.loader import load_settings
from plinth.settings.repository_address import masked

if TYPE_CHECKING:
    from pulumi import automation

    from plinth.deployment.environment_plan import EnvironmentPlan
    from plinth.kubernetes.client import Cluster

PULUMI_MASK = "[secret]"


@dataclass
class Stack:
    """One environment with its settings, what is deployed of it, and the way to drive it."""

    env: str
    root: Path
    home: Home
    settings: Settings
    opened: automation.Stack | None = field(default=None, repr=False)

    @cached_property
    def automation(self) -> automation.Stack:
        """The stack as the Automation API drives it, made when it is new."""
        # It takes longer to import than most commands take.
        from plinth.deployment.automation import program, select

        if self.opened is None:
            with suppress(Unsupported):
                self._checkpoint()  # a damaged state is refused here, before Pulumi takes it for none
            self.opened = select(self.root, self.env, self.home, lambda: program(self))
            workspace = self.opened.workspace
            workspace.env_vars = {**workspace.env_vars, **self._plugin_variables()}
        return self.opened

    @cached_property
    def plan(self) -> EnvironmentPlan:
        """What the settings and the project's files come to, derived once for a command."""
        from plinth.deployment.environment_plan import plan_environment

        return plan_environment(self.settings, self.root, self.home)

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster and namespace of an environment on Kubernetes, by one client for a command."""
        from plinth.kubernetes.open_forwards import cluster_of

        return cluster_of(self.settings)

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs, secrets in the clear: for this process's own use, never for printing."""
        try:
            return self._checkpoint().outputs(lambda: passphrase(self.home))
        except WrongPassphrase as error:
            raise wrong_passphrase(self.env, self.home) from error
        except Unsupported:
            with self._pulumi_errors():
                return {name: output.value for name, output in self.automation.outputs().items()}

    def masked_outputs(self) -> dict[str, Any]:
        """The outputs for printing: :data:`MASK` for each secret and for what was made of one, as Pulumi marks them."""
        try:
            shown = self._checkpoint().masked_outputs()
        except Unsupported:
            # The Automation API tells of a whole output alone whether it is secret; the command marks each value in it.
            shown = _masked(json.loads(self._pulumi("stack", "output", "--json", "--stack", self.env)))
        if "backup" in shown:
            # One deployed before a login in it was refused.
            shown["backup"]["repository"] = masked(shown["backup"]["repository"])
        return shown

    def ids(self, type_: str) -> set[str]:
        """What the engine recorded of a type: the ids that the provider gave."""
        return {resource["id"] for resource in self._recorded() if resource["type"] == type_ and "id" in resource}

    def urns(self, type_: str) -> list[str]:
        """What the engine recorded of a type: its own names."""
        return [resource["urn"] for resource in self._recorded() if resource["type"] == type_]

    def recorded(self, types: Collection[str]) -> tuple[set[str], set[str]]:
        """What the engine recorded of some types: the ids of what was made, the names of what was only begun."""
        return made_and_begun(self._recorded(), self._pending(), types)

    def forget_begun(self) -> None:
        """Refresh the state and take what a killed run had begun for not made."""
        with self._pulumi_errors():
            self.automation.refresh(clear_pending_creates=True)

    def version(self) -> str | None:
        """The number of the last change to the stack; None where there was none."""
        with self._pulumi_errors():
            history = self.automation.info(show_secrets=False)
        return str(history.version) if history else None

    def unlock(self) -> None:
        """Release the lock of the state, whoever holds it."""
        with self._pulumi_errors():
            self.automation.cancel()

    def unprotect_all(self) -> None:
        """Let the engine delete what is protected: a destroy that was asked for means all of it."""
        self._unprotect("--all")

    def unprotect(self, urns: Sequence[str]) -> None:
        """Let the engine delete some of what is protected."""
        if urns:
            self._unprotect(*urns)

    def _plugin_variables(self) -> dict[str, str]:
        if self.settings.target is not TargetName.docker:
            return {}
        from plinth.targets.docker.address import engine_address, plugin_variables

        return plugin_variables(engine_address(self.settings.docker.host, os.environ, Path.home()))

    def _recorded(self) -> list[dict[str, Any]]:
        try:
            return self._checkpoint().resources()
        except Unsupported:
            with self._pulumi_errors():
                return (self.automation.export_stack().deployment or {}).get("resources") or []

    def _pending(self) -> list[dict[str, Any]]:
        try:
            return self._checkpoint().pending()
        except Unsupported:
            with self._pulumi_errors():
                return (self.automation.export_stack().deployment or {}).get("pending_operations") or []

    def _unprotect(self, *what: str) -> None:
        self._pulumi("state", "unprotect", *what, "--yes", "--stack", self.env)

    def _pulumi(self, *arguments: str) -> str:
        """What a command that the Automation API does not have prints."""
        with self._pulumi_errors():
            workspace = self.automation.workspace
            home = {"PULUMI_HOME": workspace.pulumi_home} if workspace.pulumi_home else {}
            variables = {**home, **workspace.env_vars}
            return workspace.pulumi_command.run(list(arguments), workspace.work_dir, variables).stdout

    def _pulumi_errors(self) -> AbstractContextManager[None]:
        from plinth.deployment.automation import pulumi_errors

        return pulumi_errors(self.env, self.home)

    def _checkpoint(self) -> Checkpoint:
        """The state in the project's own directory; raises :class:`Unsupported` where Pulumi alone can read it."""
        if not is_local():
            raise Unsupported("it is elsewhere")
        checkpoint = read(state_file(self.home.backend, PROJECT, self.env))
        if checkpoint is None and self.opened is not None:
            raise Unsupported("it is where the stack was opened")
        return checkpoint or Checkpoint({})


def open_stack(root: Path, env: str) -> Stack:
    """The stack of an environment; validates its settings first."""
    return Stack(env, root, home(root, env), load_settings(root, env))


def wrong_passphrase(env: str, place: Home) -> UserError:
    """What a person is told whose passphrase does not open what was encrypted."""
    return UserError(
        f"The secrets of '{env}', in its state or in stacks/Pulumi.{env}.yaml, were encrypted with another passphrase; "
        f"set PULUMI_CONFIG_PASSPHRASE to it, or put the {place.passphrase.name} file of the clone that encrypted them "
        f"at {place.passphrase}."
    )


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return MASK if value == PULUMI_MASK else value
