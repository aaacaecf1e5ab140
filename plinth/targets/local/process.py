"""A supervised process with its files and volumes, as plain functions; the Pulumi resource is in `resource.py`."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from plinth.programs.python_runtime import provide
from plinth.system.managed_process import fixed_environment
from plinth.system.private_directories import Access, give, has_access, make_volume, opened, remove_tree, replace_tree
from plinth.targets.local.supervisor import Instance, ProgramFailed, ProgramSpec, Supervisor

INITIALISE_DEADLINE_S = 120


@dataclass(frozen=True)
class ProcessSpec:
    """A process of an environment. Paths are absolute; ``files`` and their secrets travel apart.

    ``initialise`` fills the first of ``volumes`` once, into a directory beside it that is then renamed, so that an
    interrupted one leaves nothing that looks like data. ``owner`` is the account that config and volumes are for.
    ``readers`` are accounts that read a volume, by its path: where that is the owner itself, root writes it.
    ``runtime`` is the copy of Python that it starts from, where its account cannot reach the one that runs
    this.
    """

    name: str
    run: str
    config: str
    argv: tuple[str, ...]
    volumes: tuple[str, ...] = ()
    initialise: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    owner: str | None = None
    stop_signal: str = "TERM"
    stop_grace_s: int = 30
    readers: Mapping[str, str] = field(default_factory=dict)
    runtime: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProcessSpec:
        """The inverse of :meth:`to_dict`."""
        lists = {key: tuple(data[key]) for key in ("argv", "volumes", "initialise")}
        return cls(**{**data, **lists})

    @property
    def home(self) -> str:
        """Where its program keeps what is its own."""
        return self.volumes[0] if self.volumes else self.config


def start(spec: ProcessSpec, files: Mapping[str, str]) -> Instance:
    """Write the files, make the volumes, and start or restart the process."""
    supervisor = Supervisor(Path(spec.run))
    try:
        with supervisor.locked():
            if spec.runtime:
                provide(Path(spec.runtime))
        _write_files(spec, files)
        for volume in spec.volumes:
            _own_volume(spec, Path(volume), supervisor)
        if spec.initialise:
            with supervisor.locked():
                _initialise(spec)
    except OSError as error:
        where = error.filename or spec.config
        raise ProgramFailed(
            f"{spec.name}: {where} cannot be written ({error.strerror}); free the disk or the path, and run up again."
        ) from error
    return supervisor.start(
        ProgramSpec(
            name=spec.name,
            argv=spec.argv,
            directory=spec.config,
            user=spec.user,
            environment=fixed_environment(spec.environment, spec.home),
            stop_signal=spec.stop_signal,
            stop_grace_s=spec.stop_grace_s,
            umask=0o027 if spec.readers else 0o077,
        )
    )


def stop(spec: ProcessSpec) -> None:
    """Stop the process and remove its config; volumes stay."""
    config, run = Path(spec.config), Path(spec.run)
    Supervisor(run).stop(spec.name)
    if config.parent.is_dir():
        with opened(config.parent, run.parent) as parent:
            remove_tree(parent, config.name)


def running(spec: ProcessSpec) -> Instance | None:
    """The process now, or None when it is gone."""
    return Supervisor(Path(spec.run)).instance(spec.name)


def _write_files(spec: ProcessSpec, files: Mapping[str, str]) -> None:
    """Root's, to be read by the account; this user's own, where it has none."""
    owner = _owner(spec)
    access = Access(0, owner.pw_gid, 0o750) if owner else Access(os.geteuid(), os.getegid(), 0o700)
    config = Path(spec.config)
    with opened(config.parent, Path(spec.run).parent) as parent:
        replace_tree(parent, config.name, files, access)


def _own_volume(spec: ProcessSpec, volume: Path, supervisor: Supervisor) -> None:
    """Make a volume; one that was another account's is given to this one, while nothing runs on it."""
    access = _access(spec, volume)
    with opened(volume.parent, Path(spec.run).parent) as parent:
        if make_volume(parent, volume.name, access) or has_access(parent, volume.name, access):
            return
        supervisor.halt(spec.name)
        give(parent, volume.name, access, volume)


def _access(spec: ProcessSpec, volume: Path) -> Access:
    owner = _owner(spec)
    if owner is None:
        return Access(os.geteuid(), os.getegid(), 0o700)
    reader = spec.readers.get(str(volume))
    if reader is None:
        return Access(owner.pw_uid, owner.pw_gid, 0o700)
    # What is made in it is its reader's to read, by the group that it gets there.
    return Access(0 if reader == spec.owner else owner.pw_uid, pwd.getpwnam(reader).pw_gid, 0o2750)


def _owner(spec: ProcessSpec) -> pwd.struct_passwd | None:
    return pwd.getpwnam(spec.owner) if spec.owner else None


def _initialise(spec: ProcessSpec) -> None:
    volume = Path(spec.volumes[0])
    partial = volume.with_name(f"{volume.name}.partial")
    with opened(volume.parent, Path(spec.run).parent) as parent:
        if any(volume.iterdir()):
            return
        remove_tree(parent, partial.name)
        make_volume(parent, partial.name, _access(spec, volume))
        _fill(spec, volume, partial)
        os.rmdir(volume.name, dir_fd=parent)
        os.rename(partial.name, volume.name, src_dir_fd=parent, dst_dir_fd=parent)


def _fill(spec: ProcessSpec, volume: Path, partial: Path) -> None:
    owner = _owner(spec)
    # Not by subprocess's own `user`: it forks, and a fork of Pulumi's plugin, which runs gRPC threads, may crash.
    change = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--"] if owner else []
    try:
        result = subprocess.run(
            [*change, *(argument.replace(str(volume), str(partial)) for argument in spec.initialise)],
            cwd=partial,
            env=fixed_environment(home=partial),
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
