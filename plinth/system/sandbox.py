"""`python -m plinth.system.sandbox --hide DIR --write DIR -- PROGRAM ...`: run a program with directories hidden.

Landlock, which any process may use since Linux 5.13: the program and all its children read everything but what is
hidden, write only where they may, and see no process outside. Where the kernel has no Landlock, or a container's
profile refuses it, the program runs without it, and prints a warning.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
_VERSION, _BENEATH, _NO_NEW_PRIVS = 1, 1, 38
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE = 1 << 13, 1 << 14
# Of files; every other right is one of directories.
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
READING = EXECUTE | READ_FILE | READ_DIR


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Return the version of Landlock that this kernel has; 0 without Landlock."""
    return max(0, int(_libc.syscall(CREATE_RULESET, None, 0, _VERSION)))


def readable(hidden: Sequence[Path], top: Path = Path("/")) -> Iterator[Path]:
    """Yield the paths that may be read: as few as exclude what is hidden."""
    if top in hidden:
        return
    within = [each for each in hidden if each.is_relative_to(top)]
    if not within:
        yield top
        return
    try:
        below = set(top.iterdir())
    except OSError:
        # An account that may pass through a directory without listing it reaches the hidden paths and known siblings.
        below = {top / each.relative_to(top).parts[0] for each in within}
    for path in sorted(below):
        yield from readable(hidden, path)


def confine(hidden: Sequence[Path], writable: Sequence[Path]) -> None:
    """Confine this process and all its children, for good; raises OSError where the kernel refuses."""
    found = version()
    handled = (1 << 13) - 1 | (REFER if found >= 2 else 0) | (TRUNCATE if found >= 3 else 0)
    rules = _Ruleset(handled)
    ruleset = _called(CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    for path in readable([each.resolve() for each in hidden]):
        _allow(ruleset, path, READING)
    for path in (*writable, Path("/dev")):
        _allow(ruleset, path, handled)
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    _called(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    # The target of a link is allowed by its own path, or not at all.
    if path.is_symlink():
        return
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # it is gone
    try:
        allowed = rights if path.is_dir() else rights & OF_FILES
        _called(ADD_RULE, ruleset, _BENEATH, ctypes.byref(_Beneath(allowed, descriptor)), 0)
    finally:
        os.close(descriptor)


def _called(number: int, *arguments: object) -> int:
    found = int(_libc.syscall(number, *arguments))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def main() -> None:
    """Confine this process, and execute the program."""
    parser = argparse.ArgumentParser(prog="python -m plinth.system.sandbox")
    parser.add_argument("--hide", type=Path, action="append", default=[])
    parser.add_argument("--write", type=Path, action="append", default=[])
    parser.add_argument("program", nargs="+")
    given = parser.parse_args()
    try:
        confine(given.hide, given.write)
    except OSError as error:
        print(f"not confined: this kernel or container has no Landlock ({error.strerror})", file=sys.stderr)
    os.execvp(given.program[0], given.program)  # noqa: S606 - it takes the place of this one


if __name__ == "__main__":
    main()
