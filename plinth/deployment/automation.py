"""The Pulumi engine, driven through the Automation API with an inline program.

It needs the `pulumi` binary alone. The workspace is generated under .plinth/engine, so that Plinth never writes to
stacks/: the salt of the local state's encryption would otherwise land in a tracked file.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi import automation
from pydantic import SecretStr

from plinth.deployment.checkpoint import drop_damaged_attributes, state_file
from plinth.deployment.plugins import CACHE, NO_DOWNLOAD, missing_plugin
from plinth.deployment.program import deploy
from plinth.deployment.pulumi_command import Command
from plinth.deployment.pulumi_environment import (
    BACKEND_URL,
    PASSPHRASE,
    PASSPHRASE_FILE,
    PROJECT,
    is_local,
    local_backend,
    passphrase,
    refuse_other_backend,
    refuse_overrides,
)
from plinth.deployment.reach import reach
from plinth.deployment.stack import Stack, wrong_passphrase
from plinth.errors import UserError
from plinth.paths import Home, home
from plinth.qdrant.key_rotation import Keys, steps
from plinth.resources.secret import kept_secret
from plinth.services.qdrant import API_KEY
from plinth.settings import Settings
from plinth.settings.loader import NAMESPACE, read_config, settings_file, settings_of_program
from plinth.settings.plaintext_secrets import refuse_plain
from plinth.system.atomic_files import locked, write_whole
from plinth.system.http_client import exempt_loopback
from plinth.system.private_directories import PASSAGE, opened
from plinth.system.yaml_files import dump_yaml, parse_yaml, read_yaml

# How Pulumi begins to say that it cannot read what is there.
_REFUSALS = ("incorrect passphrase", "failed to load checkpoint", "could not deserialize", "unsupported checkpoint")


def encrypt(root: Path, env: str, key: str, value: str) -> None:
    """Write a setting into the environment's file, encrypted as its state is; comments there stay.

    The other settings may still be wrong or missing: there is an order in which a file is written.
    """
    path = settings_file(root, env)
    read_config(path)
    place = home(root, env)
    workspace = select(root, env, place).workspace
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
        raise refusal(done.stderr, env, place)


def select(root: Path, env: str, place: Home, program: Callable[[], None] | None = None) -> automation.Stack:
    """The stack as the Automation API drives it, made when it is new; ``program`` is what its runs declare."""
    refuse_overrides()
    refuse_other_backend(place)
    if is_local():
        drop_damaged_attributes(place.backend)
    # This process is the engine's language runtime, and the engine inherits what it has.
    exempt_loopback(os.environ)
    with pulumi_errors(env, place):
        return automation.Stack.create_or_select(env, _workspace(root, env, place, program))


@contextmanager
def pulumi_errors(env: str, place: Home) -> Iterator[None]:
    """Turn what Pulumi refuses before anything begins into a sentence."""
    try:
        yield
    except automation.CommandError as error:
        raise refusal(str(error), env, place) from error


def is_refusal(said: str) -> bool:
    """Whether Pulumi could not read the state, so that nothing began."""
    return any(words in said for words in _REFUSALS)


def refusal(said: str, env: str, place: Home) -> UserError:
    """What Pulumi refused before anything began, as a sentence."""
    if "incorrect passphrase" in said:
        return wrong_passphrase(env, place)
    return UserError(f"Pulumi cannot open the stack '{env}': {last_error(said)}", exit_code=1)


def last_error(said: str) -> str:
    """The last error in what Pulumi printed."""
    plugin = missing_plugin(said)
    if plugin:
        return plugin
    lines = [line.strip().removeprefix("stderr: ") for line in said.splitlines()]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    return errors[-1] if errors else said.strip().splitlines()[-1]


def program(stack: Stack, keys: Keys | None = None) -> None:
    """The Pulumi program: settings from Pulumi's config, with other keys where some are given, then the composition."""
    settings = settings_within(stack.root, stack.env)
    reach(stack)
    deploy(stack.plan.with_settings(with_keys(settings, keys) if keys else settings))


def settings_within(root: Path, env: str) -> Settings:
    """The settings as Pulumi gives them to the program that it runs, secrets in the clear."""
    refuse_plain(root, env)
    return settings_of_program(pulumi.runtime.config.CONFIG.get() | pulumi.runtime.config.get_config_env(), root)


def runs(stack: Stack, outputs: Mapping[str, Any]) -> Iterator[Keys | None]:
    """Prepare the stack for each run that an `up` takes: one, but for a cluster that gets another API key."""
    for keys in _key_steps(stack, outputs):
        stack.automation.workspace.program = partial(program, stack, keys)
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


class _Workspace(automation.LocalWorkspace):
    """Asks nothing of Pulumi that the files say."""

    def __init__(self, place: Home, **options: Any) -> None:
        super().__init__(**options)
        self._place = place

    def select_stack(self, stack_name: str) -> None:
        """Every command names the stack, so selecting it does no more than to see that there is one."""
        if not (is_local() and state_file(self._place.backend, PROJECT, stack_name).exists()):
            super().select_stack(stack_name)


def _workspace(root: Path, env: str, place: Home, program: Callable[[], None] | None) -> automation.LocalWorkspace:
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
    return _Workspace(
        place,
        program=program,
        work_dir=str(place.engine),
        project_settings=automation.ProjectSettings(name=PROJECT, runtime="python"),
        env_vars=_environment(place),
        pulumi_command=_command(place),
    )


def _write_stack_file(root: Path, env: str, generated: Path) -> None:
    """Copy the environment's file; keep the salt that Pulumi added to the copy unless the file has its own.

    Two commands at once, or one that is killed here, leave a whole copy: half of one has no salt, and the next would
    keep none.
    """
    document = read_yaml(settings_file(root, env))
    with locked(generated.with_suffix(".lock")):
        before = _generated_before(generated)
        if not {"encryptionsalt", "secretsprovider"} & document.keys():
            document |= {key: before[key] for key in ("encryptionsalt",) if key in before}
        if document != before:
            write_whole(generated, dump_yaml(document))


def _generated_before(generated: Path) -> dict[str, Any]:
    try:
        return dict(parse_yaml(generated.read_text()) or {})
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _environment(place: Home) -> dict[str, str]:
    variables = {
        # The dynamic providers' shim lies beside this interpreter.
        "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "PULUMI_PYTHON_CMD": sys.executable,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK": "true",
        **NO_DOWNLOAD,
    }
    if is_local():
        place.backend.mkdir(mode=0o700, parents=True, exist_ok=True)
        variables[BACKEND_URL] = local_backend(place)
        variables["PULUMI_HOME"] = str(place.pulumi)
    if not {PASSPHRASE, PASSPHRASE_FILE} & os.environ.keys():
        variables[PASSPHRASE_FILE] = str(_made_passphrase(place))
    passphrase(place)
    return variables


def _made_passphrase(place: Home) -> Path:
    if not place.passphrase.exists():
        # Beside it first: neither a kill nor another run at once leaves an empty one, or a second one.
        made = place.base / f".passphrase-{secrets.token_hex(8)}"
        write_whole(made, secrets.token_urlsafe(32) + "\n")
        with suppress(FileExistsError):
            place.passphrase.hardlink_to(made)
        made.unlink()
    return place.passphrase


def _command(place: Home) -> Command:
    built = place.base / "bin" / "pulumi"
    binary = shutil.which("pulumi") or (str(built) if built.exists() else None)
    if binary is None:
        raise UserError("There is no `pulumi` on PATH nor in .plinth/bin; run `make bootstrap`.")
    return Command(binary)
