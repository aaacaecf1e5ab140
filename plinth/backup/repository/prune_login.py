"""The login that may delete from an append-only repository. It is a separate file, which the environment does not have.

    RESTIC_REST_USERNAME=pruner
    RESTIC_REST_PASSWORD=…
    RESTIC_REPOSITORY=rest:https://backup.example.org:8001/prod

Or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. RESTIC_REPOSITORY names the same repository where its server accepts
deletions at another address.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from plinth.backup.config import Config
from plinth.errors import UserError

REPOSITORY = "RESTIC_REPOSITORY"
KEYS = (
    REPOSITORY,
    "RESTIC_REST_USERNAME",
    "RESTIC_REST_PASSWORD",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)


def with_prune_login(config: Config, file: Path) -> Config:
    """Return the configuration with the login of a file. Raises :class:`UserError` for a file that others can read."""
    login = read_login(file)
    repository = config.repository.model_copy(
        update={
            "location": login.pop(REPOSITORY, config.repository.location),
            "environment": {**config.repository.environment, **login},
            "environment_files": {
                name: path for name, path in config.repository.environment_files.items() if name not in login
            },
        }
    )
    # A separate directory: the environment's cache holds the repository under the address of its backups.
    return config.model_copy(
        update={"repository": repository, "append_only": False, "directory": config.directory / "prune"}
    )


def read_login(file: Path) -> dict[str, str]:
    """Return the variables of a login file. The file must belong to the current user and be closed to all others."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); name a file with the login for pruning.") from error
    with os.fdopen(descriptor) as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise UserError(f"{file} holds a login and others may read it, or own it: chmod 600 {file}, as its owner.")
        lines = [line.strip() for line in opened.read().splitlines()]
    login = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    unknown = sorted(set(login) - set(KEYS)) or [line for line in lines if line and line[0] != "#" and "=" not in line]
    if unknown:
        raise UserError(f"{file} has a line that is no login; it may set {', '.join(KEYS)}, one a line as NAME=VALUE.")
    return login
