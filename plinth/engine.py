"""The Pulumi engine, driven through the Automation API with an inline program.

It needs the `pulumi` binary alone. The workspace is generated under .plinth/engine, so that Plinth never writes to
stacks/: the salt of the local state's encryption would otherwise land in a tracked file.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pulumi
import yaml
from pulumi import automation
from pydantic import SecretStr

from plinth.deploy import deploy
from plinth.directories import PASSAGE, opened
from plinth.encrypted import refuse_plain
from plinth.environment import NAMESPACE, load_settings, read_config, settings_file, settings_of_program
from plinth.errors import UserError
from plinth.home import Home, base_of, home
from plinth.http_client import exempt_loopback
from plinth.plugins import CACHE, NO_DOWNLOAD, missing_plugin
from plinth.qdrant.rotation import Keys, steps
from plinth.repository_address import masked
from plinth.resources.secret import kept_secret
from plinth.services.qdrant import API_KEY
from plinth.settings import Settings
from plinth.targets.choose import open_reach
from plinth.yaml_files import dump_yaml, read_yaml

PROJECT = "plinth"
MASK = "********"
PULUMI_MASK = "[secret]"
MINIMUM_VERSION = ">=3.238.0"


@dataclass(frozen=True)
class Stack:
    """One environment's Pulumi stack with what is needed to drive it."""

    env: str
    root: Path
    home: Home
    settings: Settings
    automation: automation.Stack

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs, secrets in the clear: for this process's own use, never for printing."""
        return {name: output.value for name, output in self.automation.outputs().items()}

    def masked_outputs(self) -> dict[str, Any]:
        """The outputs for printing: :data:`MASK` for each secret and for what was made of one, as Pulumi marks them.

        The Automation API tells of a whole output alone whether it is secret; the command marks each value within.
        """
        shown: dict[str, Any] = _masked(json.loads(self._pulumi("stack", "output", "--json", "--stack", self.env)))
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

    def _recorded(self) -> list[dict[str, Any]]:
        return (self.automation.export_stack().deployment or {}).get("resources") or []

    def unprotect_all(self) -> None:
        """Let the engine delete what is protected: a destroy that was asked for means all of it."""
        self._unprotect("--all")

    def unprotect(self, urns: Sequence[str]) -> None:
        """Let the engine delete some of what is protected."""
        if urns:
            self._unprotect(*urns)

    def _unprotect(self, *what: str) -> None:
        self._pulumi("state", "unprotect", *what, "--yes", "--stack", self.env)

    def _pulumi(self, *arguments: str) -> str:
        """What a command that the Automation API does not have prints."""
        workspace = self.automation.workspace
        home = {"PULUMI_HOME": workspace.pulumi_home} if workspace.pulumi_home else {}
        return workspace.pulumi_command.run(list(arguments), workspace.work_dir, {**home, **workspace.env_vars}).stdout

    def is_deployed(self) -> bool:
        """Whether the last `up` got as far as its outputs."""
        return bool(self.automation.outputs())


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return MASK if value == PULUMI_MASK else value


def open_stack(root: Path, env: str) -> Stack:
    """The stack of an environment, made when it is new; validates its settings first."""
    settings = load_settings(root, env)
    place = home(root, env)
    return Stack(env, root, place, settings, _selected(root, env, place))


def encrypt(root: Path, env: str, key: str, value: str) -> None:
    """Write a setting into the environment's file, encrypted as its state is; comments there stay.

    The other settings may still be wrong or missing: there is an order in which a file is written.
    """
    path = settings_file(root, env)
    read_config(path)
    place = home(root, env)
    workspace = _selected(root, env, place).workspace
    words = ["config", "set", "--non-interactive", "--secret", "--path", f"{NAMESPACE}:{key}"]
    done = subprocess.run(
        [workspace.pulumi_command.command, *words, "--stack", env, "--config-file", str(path)],
        # An argument could be read by every user of the machine.
        input=value,
        cwd=workspace.work_dir,
        env={**os.environ, **workspace.env_vars},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise _refused(done.stderr, env, place)


def _selected(root: Path, env: str, place: Home) -> automation.Stack:
    # This process is the engine's language runtime, and the engine inherits what it has.
    exempt_loopback(os.environ)
    try:
        return automation.create_or_select_stack(
            stack_name=env,
            project_name=PROJECT,
            program=lambda: program(root, env),
            opts=_workspace(root, env, place),
        )
    except automation.CommandError as error:
        raise _refused(str(error), env, place) from error


def _refused(said: str, env: str, place: Home) -> UserError:
    """What Pulumi refused before anything began, as a sentence."""
    if "incorrect passphrase" in said:
        return UserError(
            f"stacks/Pulumi.{env}.yaml holds secrets that were encrypted with another passphrase; set "
            f"PULUMI_CONFIG_PASSPHRASE to it, or put the {place.passphrase.name} file of the clone that encrypted them "
            f"at {place.passphrase}."
        )
    return UserError(f"Pulumi cannot open the stack '{env}': {last_error(said)}", exit_code=1)


def last_error(said: str) -> str:
    """The last error in what Pulumi printed."""
    plugin = missing_plugin(said)
    if plugin:
        return plugin
    lines = [line.strip().removeprefix("stderr: ") for line in said.splitlines()]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    return errors[-1] if errors else said.strip().splitlines()[-1]


def program(root: Path, env: str, keys: Keys | None = None) -> None:
    """The Pulumi program: settings from Pulumi's config, with other keys where some are given, then the composition."""
    refuse_plain(root, env)
    settings = settings_of_program(pulumi.runtime.config.CONFIG.get() | pulumi.runtime.config.get_config_env(), root)
    open_reach(settings, root, home(root, env))
    deploy(with_keys(settings, keys) if keys else settings, root, home(root, env))


def runs(stack: Stack, outputs: Mapping[str, Any]) -> Iterator[Keys | None]:
    """Prepare the stack for each run that an `up` takes: one, but for a cluster that gets another API key."""
    for keys in _key_steps(stack, outputs):
        stack.automation.workspace.program = partial(program, stack.root, stack.env, keys)
        yield keys


def with_keys(settings: Settings, keys: Keys) -> Settings:
    """Settings with these keys of Qdrant."""
    changed = {"api_key": SecretStr(keys.key), "alt_api_key": SecretStr(keys.beside) if keys.beside else None}
    return settings.model_copy(update={"qdrant": settings.qdrant.model_copy(update=changed)})


def _key_steps(stack: Stack, outputs: Mapping[str, Any]) -> Sequence[Keys | None]:
    before = outputs.get("qdrant", {})
    if stack.settings.qdrant.nodes == 1 or "nodes" not in before or not before["api_key"]:
        return [None]
    config = {name: found.value for name, found in stack.automation.get_all_config().items()}
    wanted = settings_of_program(config, stack.root).qdrant
    if not wanted.auth:
        return [None]
    key = (
        wanted.api_key.get_secret_value()
        if wanted.api_key
        else kept_secret(stack.home.secrets, API_KEY, before["api_key"])
    )
    beside = wanted.alt_api_key.get_secret_value() if wanted.alt_api_key else None
    taken = steps(Keys(before["api_key"], before.get("alt_api_key")), Keys(key, beside))
    return taken if len(taken) > 1 else [None]


def break_stale_lock(stack: Stack) -> str | None:
    """Release the state's lock if the run that took it on this machine is dead; returns a sentence when it did."""
    for lock in (stack.home.backend / ".pulumi" / "locks").rglob("*.json"):
        if lock.parent.name != stack.env:
            continue
        holder = json.loads(lock.read_text())
        if holder.get("hostname") == socket.gethostname() and not psutil.pid_exists(int(holder["pid"])):
            stack.automation.cancel()
            return f"An earlier run (pid {holder['pid']}) died while it held the state; its lock was released."
    return None


def forget(stack: Stack) -> None:
    """Remove what the engine kept of a destroyed stack; with the last one, the whole local state.

    The passphrase stays: what `plinth secret` wrote into files of stacks/ opens with no other.
    """
    stack.automation.workspace.remove_stack(stack.env)
    (stack.home.engine / f"Pulumi.{stack.env}.yaml").unlink(missing_ok=True)
    if any(stack.home.engine.glob("Pulumi.*.yaml")):
        return
    for directory in (stack.home.engine, stack.home.backend, stack.home.pulumi):
        # Data of an environment that had such a name before it was refused; and plugins that may not be had again.
        _remove(directory, but=("data", CACHE))


def _remove(directory: Path, but: Sequence[str]) -> None:
    """Remove what is in a directory but for some names, and the directory where nothing stays."""
    for entry in directory.glob("*"):
        if entry.name in but:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    if directory.exists() and not any(directory.iterdir()):
        directory.rmdir()


def pulumi_home(root: Path) -> Path:
    """Where the engine of a project looks for its plugins."""
    if "PULUMI_BACKEND_URL" not in os.environ:
        return base_of(root) / "pulumi"
    return Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")


def _workspace(root: Path, env: str, place: Home) -> automation.LocalWorkspaceOptions:
    place.base.mkdir(exist_ok=True)
    if place.base.stat().st_uid == os.geteuid():
        # Services go through it to their volumes, whatever mask it was made under.
        place.base.chmod(PASSAGE)
    if not place.place.is_relative_to(place.base):
        # The same where root keeps them elsewhere.
        with opened(place.place.parent, place.place.parent):
            pass
    place.engine.mkdir(mode=0o700, exist_ok=True)
    _write_stack_file(root, env, place.engine / f"Pulumi.{env}.yaml")
    return automation.LocalWorkspaceOptions(
        work_dir=str(place.engine),
        project_settings=automation.ProjectSettings(name=PROJECT, runtime="python"),
        env_vars=_environment(place),
        pulumi_command=_command(place),
    )


def _write_stack_file(root: Path, env: str, generated: Path) -> None:
    """Copy the environment's file; keep the salt that Pulumi added to the copy unless the file has its own."""
    document = read_yaml(settings_file(root, env))
    if generated.exists() and not {"encryptionsalt", "secretsprovider"} & document.keys():
        before = yaml.safe_load(generated.read_text()) or {}
        document |= {key: before[key] for key in ("encryptionsalt",) if key in before}
    generated.write_text(dump_yaml(document), encoding="utf-8")


def _environment(place: Home) -> dict[str, str]:
    variables = {
        # The dynamic providers' shim lies beside this interpreter.
        "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "PULUMI_PYTHON_CMD": sys.executable,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK": "true",
        **NO_DOWNLOAD,
    }
    if "PULUMI_BACKEND_URL" not in os.environ:
        place.backend.mkdir(mode=0o700, parents=True, exist_ok=True)
        variables["PULUMI_BACKEND_URL"] = f"file://{place.backend}"
        variables["PULUMI_HOME"] = str(place.pulumi)
    if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & os.environ.keys():
        variables["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(_passphrase(place))
    return variables


def _passphrase(place: Home) -> Path:
    if not place.passphrase.exists():
        place.passphrase.touch(mode=0o600)
        place.passphrase.write_text(secrets.token_urlsafe(32) + "\n")
    return place.passphrase


def _command(place: Home) -> automation.PulumiCommand:
    built = place.base / "bin" / "pulumi"
    if shutil.which("pulumi") is None and not built.exists():
        raise UserError("There is no `pulumi` on PATH nor in .plinth/bin; run `make bootstrap`.")
    return automation.PulumiCommand(root=None if shutil.which("pulumi") else str(place.base), skip_version_check=True)
