"""A supervised process with its files and volumes, as plain functions; the Pulumi resource is in `resource.py`."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from plinth.files import write_whole
from plinth.targets.local.supervisor import Instance, ProgramFailed, ProgramSpec, Supervisor

INITIALISE_DEADLINE_S = 120


@dataclass(frozen=True)
class ProcessSpec:
    """A process of an environment. Paths are absolute; ``files`` and their secrets travel apart.

    ``initialise`` fills the first of ``volumes`` once, into a directory beside it that is then renamed, so that an
    interrupted one leaves nothing that looks like data.
    """

    name: str
    run: str
    config: str
    argv: tuple[str, ...]
    volumes: tuple[str, ...] = ()
    initialise: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: str = "TERM"
    stop_grace_s: int = 30

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProcessSpec:
        """The inverse of :meth:`to_dict`."""
        lists = {key: tuple(data[key]) for key in ("argv", "volumes", "initialise")}
        return cls(**{**data, **lists})


def start(spec: ProcessSpec, files: Mapping[str, str]) -> Instance:
    """Write the files, make the volumes, and start or restart the process."""
    owner = pwd.getpwnam(spec.user) if spec.user else None
    try:
        _write_files(Path(spec.config), files, owner)
        for volume in spec.volumes:
            _make_volume(Path(volume), owner)
    except OSError as error:
        where = error.filename or spec.config
        raise ProgramFailed(
            f"{spec.name}: {where} cannot be written ({error.strerror}); free the disk or the path, and run up again."
        ) from error
    supervisor = Supervisor(Path(spec.run))
    if spec.initialise:
        with supervisor.locked():
            _initialise(spec, owner)
    return supervisor.start(
        ProgramSpec(
            name=spec.name,
            argv=spec.argv,
            directory=spec.config,
            user=spec.user,
            environment=spec.environment,
            stop_signal=spec.stop_signal,
            stop_grace_s=spec.stop_grace_s,
        )
    )


def stop(spec: ProcessSpec) -> None:
    """Stop the process and remove its config; volumes stay."""
    Supervisor(Path(spec.run)).stop(spec.name)
    shutil.rmtree(spec.config, ignore_errors=True)


def running(spec: ProcessSpec) -> Instance | None:
    """The process now, or None when it is gone."""
    return Supervisor(Path(spec.run)).instance(spec.name)


def _write_files(directory: Path, files: Mapping[str, str], owner: pwd.struct_passwd | None) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    stale = {path for path in directory.rglob("*") if path.is_file()} - {directory / name for name in files}
    for path in stale:
        path.unlink()
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    _own(directory, owner)


def _make_volume(volume: Path, owner: pwd.struct_passwd | None) -> None:
    if volume.exists():
        return
    volume.mkdir(parents=True, mode=0o700)
    _own(volume, owner)


def _own(path: Path, owner: pwd.struct_passwd | None) -> None:
    for entry in (path, *path.rglob("*")):
        entry.chmod(0o700 if entry.is_dir() else 0o600)
        if owner:
            os.chown(entry, owner.pw_uid, owner.pw_gid)


def _initialise(spec: ProcessSpec, owner: pwd.struct_passwd | None) -> None:
    volume = Path(spec.volumes[0])
    if any(volume.iterdir()):
        return
    partial = volume.with_name(f"{volume.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _make_volume(partial, owner)
    # Not by subprocess's own `user`: it forks, and a fork of Pulumi's plugin, which runs gRPC threads, may crash.
    change = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--"] if owner else []
    try:
        result = subprocess.run(
            [*change, *(argument.replace(str(volume), str(partial)) for argument in spec.initialise)],
            cwd=partial,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            capture_output=True,
            text=True,
            timeout=INITIALISE_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramFailed(
            f"{spec.name} has not prepared {volume} in {INITIALISE_DEADLINE_S} s; look at the disk, then run up again."
        ) from error
    if result.returncode != 0:
        words = " / ".join((result.stderr or result.stdout).strip().splitlines()[-3:]) or "it said nothing"
        raise ProgramFailed(f"{spec.name} could not prepare {volume} (exit {result.returncode}): {words}")
    volume.rmdir()
    partial.rename(volume)
