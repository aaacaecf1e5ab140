"""Pulumi's plugins of a target: whether one is there, and how it comes.

The engine downloads none by itself: what it downloads it compares with nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from plinth.errors import UserError
from plinth.settings import TargetName
from plinth.targets import downloads
from plinth.targets.downloads import MIRROR, PinnedArchive, PinnedTool, pinned, published_digest, this_platform


class PluginName(StrEnum):
    """The plugins that a target needs, by the target's name."""

    docker = "docker"
    kubernetes = "kubernetes"


CACHE = "plugins"
# The engine says which plugin is missing, and downloads none.
NO_DOWNLOAD = {"PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true"}
_MISSING = re.compile(r"no resource plugin 'pulumi-resource-([\w-]+)' found in the workspace at version v([\w.-]+)")


def plugin_version(name: str) -> str:
    """The version that the Python package of a plugin asks for."""
    return version(f"pulumi-{name}")


def directory(pulumi_home: Path, name: str) -> Path:
    """Where the engine looks for a plugin."""
    return pulumi_home / CACHE / f"resource-{name}-v{plugin_version(name)}"


def refuse_missing(target: TargetName, pulumi_home: Path) -> None:
    """Refuse a target whose plugin is neither on PATH nor installed."""
    name = target.value
    if name not in set(PluginName) or is_there(name, pulumi_home):
        return
    raise UserError(_missing(name, plugin_version(name)), exit_code=1)


def missing_plugin(printed: str) -> str | None:
    """The engine's words for a plugin that what is deployed needs, as a sentence."""
    missing = _MISSING.search(printed)
    return _missing(missing[1], missing[2]) if missing else None


def _missing(name: str, version_: str) -> str:
    return f"Pulumi's {name} plugin {version_} is needed and not on this machine; run `plinth plugins install {name}`."


def install(root: Path, pulumi_home: Path, name: str, file: Path | None, sha256: str | None) -> str:
    """Install a plugin from a file or from the network by its digest; the sentence that says which way it went."""
    pins = pinned(root, f"{name}-plugin")
    release = _release(pins, name, file, sha256)
    target = directory(pulumi_home, name)
    if file is None:
        return downloads.install(pins, release, target, os.environ.get(MIRROR))
    return downloads.install_file(pins, release, target, file)


def is_there(name: str, pulumi_home: Path) -> bool:
    """Whether the engine would find a plugin."""
    # The engine's own variable: plugins that run already, such as `docker:40001`.
    attached = [entry.partition(":")[0] for entry in os.environ.get("PULUMI_DEBUG_PROVIDERS", "").split(",")]
    if name in attached:
        return True
    binary = f"pulumi-resource-{name}"
    return shutil.which(binary) is not None or (directory(pulumi_home, name) / binary).is_file()


def _release(pins: PinnedTool, name: str, file: Path | None, sha256: str | None) -> PinnedArchive:
    needed = plugin_version(name)
    pin = pins.platforms.get(this_platform())
    if sha256 is not None:
        try:
            return PinnedArchive(version=needed, sha256=sha256.lower())
        except ValidationError as error:
            raise UserError(f"--sha256 '{sha256}' is no digest; give 64 hexadecimal digits.") from error
    if pin is not None and pin.version == needed:
        return pin
    if file is not None:
        raise UserError(
            f"No digest of the {name} plugin {needed} is pinned; add --sha256 with the one that its release page shows."
        )
    try:
        return published_digest(pins, needed)
    except UserError as error:
        raise UserError(
            f"{error} Bring {pins.archive_name(needed)} to this machine and run "
            f"`plinth plugins install {name} --file ARCHIVE --sha256 DIGEST`.",
            exit_code=1,
        ) from error
