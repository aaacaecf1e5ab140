"""What Pulumi reads of the user's environment: named where Plinth goes by it, refused where it would go unseen."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from plinth.deployment.checkpoint import Unsupported, read, state_file
from plinth.errors import UserError
from plinth.paths import Home, base_of
from plinth.settings.repository_address import masked
from plinth.system.atomic_files import write_whole
from plinth.system.private_directories import make_passage

PROJECT = "plinth"
BACKEND_URL = "PULUMI_BACKEND_URL"
PASSPHRASE = "PULUMI_CONFIG_PASSPHRASE"  # noqa: S105  # the names of variables
PASSPHRASE_FILE = "PULUMI_CONFIG_PASSPHRASE_FILE"  # noqa: S105
# Each would change what is deployed, or what is recorded of it, beside the settings file.
_OVERRIDES = re.compile(
    r"PULUMI_(CONFIG(?!_PASSPHRASE$|_PASSPHRASE_FILE$).*|OPTION_.*|STACK|SKIP_CHECKPOINTS|CONTINUE_ON_ERROR"
    r"|DISABLE_REFRESH_BEFORE_UPDATE|DIY_BACKEND_LEGACY_LAYOUT)"
)


def refuse_overrides(environment: Mapping[str, str] = os.environ) -> None:
    """Raise :class:`UserError` for a variable by which Pulumi would do something else than the settings say."""
    names = sorted(name for name in environment if _OVERRIDES.fullmatch(name))
    if names:
        raise UserError(
            f"{', '.join(names)} would change what Pulumi does without a word in stacks/; unset it: "
            f"unset {' '.join(names)}."
        )


def passphrase(home: Home, environment: Mapping[str, str] = os.environ) -> str:
    """The passphrase of the state's secrets, as Pulumi finds it; refuses one that is empty or cannot be read."""
    if PASSPHRASE in environment:
        value, source = environment[PASSPHRASE], PASSPHRASE
    else:
        path = passphrase_file(home, environment)
        source = f"{PASSPHRASE_FILE} ({path})" if PASSPHRASE_FILE in environment else str(path)
        try:
            value = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UserError(
                f"The passphrase of the state's secrets cannot be read from {source} ({why}); put the file back, or "
                f"set {PASSPHRASE}."
            ) from error
    if not value:
        raise UserError(f"{source} is empty, and secrets are encrypted with it; put the passphrase there, or unset it.")
    return value


def passphrase_file(home: Home, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the passphrase is read from, when no variable holds it."""
    return Path(environment.get(PASSPHRASE_FILE) or home.passphrase)


def local_backend(home: Home) -> str:
    """The URL of the state in the project's own directory."""
    return f"file://{quote(str(home.backend))}"


def pulumi_home(root: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the engine of a project looks for its plugins."""
    if is_local(environment):
        return base_of(root) / "pulumi"
    return Path(environment.get("PULUMI_HOME") or Path.home() / ".pulumi")


def is_local(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the state lies in the project's own directory."""
    return BACKEND_URL not in environment


def refuse_other_backend(home: Home, environment: Mapping[str, str] = os.environ) -> None:
    """Raise :class:`UserError` where the environment is deployed from a state at another place.

    A second state knows nothing of what runs: it would deploy everything over it.
    """
    backend = _shown(environment.get(BACKEND_URL) or local_backend(home))
    recorded = _recorded(home)
    if recorded and recorded != backend:
        step = (
            f"unset {BACKEND_URL}" if recorded == _shown(local_backend(home)) else f"set {BACKEND_URL} to that address"
        )
        raise UserError(
            f"'{home.env}' is deployed with its state in {recorded}, and this run would use {backend}; {step}, or run "
            f"`plinth down {home.env}` with it first."
        )


def record_backend(home: Home, environment: Mapping[str, str] = os.environ) -> None:
    """Remember where the state of a deployed environment is."""
    make_passage(_record(home).parent)
    backend = _shown(environment.get(BACKEND_URL) or local_backend(home))
    write_whole(_record(home), json.dumps({"backend": backend}) + "\n")


def forget_backend(home: Home) -> None:
    """Nothing is deployed any more."""
    _record(home).unlink(missing_ok=True)


def _record(home: Home) -> Path:
    return home.data / "state.json"


def _recorded(home: Home) -> str | None:
    try:
        return str(json.loads(_record(home).read_text())["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # deployed by an earlier version, or not at all
    try:
        checkpoint = read(state_file(home.backend, PROJECT, home.env))
    except Unsupported:
        return _shown(local_backend(home))
    return _shown(local_backend(home)) if checkpoint and checkpoint.resources() else None


def _shown(url: str) -> str:
    return masked(url).rstrip("/")
