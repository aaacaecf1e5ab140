"""Paths of one environment's generated files: all are under `.plinth/`, which git ignores."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plinth.errors import UserError
from plinth.system.atomic_files import write_whole
from plinth.system.private_directories import make_passage

# Files of services go here when the clone is in a directory that other accounts cannot enter.
OUTSIDE = Path("/var/lib/plinth")
# What Plinth itself has where each environment of a clone has a directory. A later one begins with a dot, which no name
# of an environment does.
RESERVED = frozenset({"backend", "bin", "cache", "engine", "migrate", "passphrase", "pulumi"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Home:
    """The paths of one environment.

    ``base`` is shared by the environments of a clone (Pulumi's state, the passphrase, caches); ``place`` holds what
    the services of this environment read and write.
    """

    base: Path
    place: Path

    @property
    def env(self) -> str:
        """The environment's name."""
        return self.place.name

    @property
    def run(self) -> Path:
        """Configs, sockets and logs; removed by `down`."""
        return self.place / "run"

    @property
    def removed(self) -> tuple[Path, ...]:
        """All that `down` removes, whatever is in it."""
        return self.run, self.engine, self.backend, self.pulumi

    @property
    def data(self) -> Path:
        """Volumes and the secrets that open them; `down` keeps them."""
        return self.place / "data"

    @property
    def secrets(self) -> Path:
        """The generated secrets, kept with the data that they open."""
        return self.data / "secrets.json"

    @property
    def deployed(self) -> Path:
        """The record of the last deployment over the data, kept with it."""
        return self.data / "deployed.json"

    @property
    def watched(self) -> Path:
        """Files that the command line writes and the exporter only reads: its volume on the local target."""
        return self.data / "plinth-exporter" / "state"

    @property
    def backups(self) -> Path:
        """The backups' files: staging, and the repository where it is local."""
        return self.data / "plinth-backup"

    @property
    def backup_state(self) -> Path:
        """The status that backups write for the exporter and for `status`, which only read it."""
        return self.backups / "state"

    @property
    def engine(self) -> Path:
        """The Pulumi workspace of the environment."""
        return self.base / "engine"

    @property
    def backend(self) -> Path:
        """Pulumi's file backend."""
        return self.base / "backend"

    @property
    def pulumi(self) -> Path:
        """Pulumi's own directory, where the state is local."""
        return self.base / "pulumi"

    @property
    def passphrase(self) -> Path:
        """The passphrase that encrypts the secrets in Pulumi's state."""
        return self.base / "passphrase"

    @property
    def cache(self) -> Path:
        """Files that can be re-created: data sets, probe results."""
        return self.base / "cache"


def base_of(root: Path) -> Path:
    """Return the directory that the environments of a clone share."""
    return root / ".plinth"


def refuse_name(root: Path, env: str) -> None:
    """Raise :class:`UserError` for a name that would collide with Plinth's own directories."""
    if not _NAME.fullmatch(env):
        raise UserError(
            f"'{env}' is no name of an environment; it has letters, digits, '.', '_' and '-', a letter or digit first."
        )
    if env.casefold() in RESERVED:
        data = base_of(root) / env / "data"
        move = (
            f" Its data stays in {data}: stop its services, and move that to .plinth/NAME/data."
            if data.exists()
            else ""
        )
        raise UserError(
            f"An environment cannot be named '{env}': Plinth keeps files of its own in .plinth/{env}. Give "
            f"stacks/Pulumi.{env}.yaml another name.{move}"
        )


def home(root: Path, env: str) -> Home:
    """Return the paths of an environment of the project at ``root``.

    Postgres refuses to run as root, so for root its files must be where another user can reach them. Where the project
    is out of their reach (a clone under /root), they go to /var/lib/plinth. Once there is data the location stays, even
    if the permissions of the directories above it change.
    """
    base = base_of(root)
    within, outside = base / env, OUTSIDE / _outside_name(root) / env
    for place in (within, outside):
        if place.is_dir():
            return Home(base, place)
    return Home(base, within if os.geteuid() != 0 or _others_can_enter(root) else outside)


def tools_of(root: Path) -> Path:
    """Return the directory of downloaded programs; the services' accounts can reach it when run by root."""
    if os.geteuid() != 0 or _others_can_enter(root):
        return base_of(root) / "bin"
    return OUTSIDE / "tools" / _outside_name(root)


def _outside_name(root: Path) -> str:
    return f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"


def remember_deployed(place: Home, deployed: Mapping[str, Any]) -> None:
    """Record with the data what was deployed over it: `down` removes Pulumi's state, and keeps the data."""
    make_passage(place.deployed.parent)
    write_whole(place.deployed, json.dumps(dict(deployed), indent=2) + "\n")


def last_deployed(place: Home) -> Any:
    """Return the record of the last deployment over the data, or None."""
    try:
        return json.loads(place.deployed.read_text())
    except (OSError, ValueError):
        return None


def _others_can_enter(path: Path) -> bool:
    return all(directory.stat().st_mode & stat.S_IXOTH for directory in (path, *path.parents))
