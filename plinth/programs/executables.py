"""Executables on this machine: their paths and versions."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from plinth.errors import UserError
from plinth.paths import tools_of
from plinth.programs.spec import Program

VERSION_DEADLINE_S = 10


CLONE = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Found:
    """The argument vector that starts a program; ``substitute`` when another program serves in its place."""

    argv: tuple[str, ...]
    substitute: bool = False


def find(program: Program, environment: Mapping[str, str] = os.environ) -> Found | None:
    """Return the program's executable: by its variable, in its directories, on PATH, of bootstrap, or its substitute.

    Raises :class:`UserError` when the variable names something that cannot be executed.
    """
    named = environment.get(program.variable, "") if program.variable else ""
    if named:
        if not os.access(named, os.X_OK) or Path(named).is_dir():
            raise UserError(f"{program.variable} is {named}, which is not an executable file; correct or unset it.")
        return Found((named,))
    # The directories come first: they hold whole installations by version, PATH often a bare wrapper.
    for pattern in program.search:
        for directory in sorted(glob.glob(pattern, recursive=True), key=_version, reverse=True):  # noqa: PTH207 - the pattern is absolute
            for binary in program.binaries:
                if os.access(Path(directory) / binary, os.X_OK):
                    return Found((str(Path(directory) / binary),))
    for directories in (environment.get("PATH"), str(tools_of(CLONE))):
        for binary in program.binaries:
            path = shutil.which(binary, path=directories)
            if path:
                return Found((path,))
    return Found(program.substitute, substitute=True) if program.substitute else None


def version(found: Found) -> tuple[int, ...] | None:
    """Return the version that a program prints for --version; None where it prints none."""
    try:
        result = subprocess.run(
            [*found.argv, "--version"],
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_DEADLINE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    named = re.search(r"version v?(\d+(?:\.\d+)+)", result.stdout + result.stderr)
    return _version(named[1]) if named else None


def home(program: Program, found: Found) -> str:
    """Return the directory of the files that a program reads: above its executable where it was unpacked as a whole."""
    unpacked = Path(found.argv[0]).resolve().parent.parent
    return str(unpacked) if program.landmark and (unpacked / program.landmark).exists() else program.home


def beside(program: Found, tool: str) -> str:
    """Return the path of a tool that ships with a program, such as `initdb` with `postgres`."""
    sibling = Path(program.argv[0]).with_name(tool)
    if sibling.exists():
        return str(sibling)
    found = shutil.which(tool)
    if found is None:
        raise UserError(f"{tool} is not beside {program.argv[0]} nor on PATH; reinstall the package it came with.")
    return found


def _version(path: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", path))
