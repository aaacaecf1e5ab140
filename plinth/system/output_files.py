"""Output files of a command: checked before its work begins, so that no result is lost at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from plinth.errors import UserError


def output_files(files: Mapping[str, Path | None]) -> dict[str, Path | None]:
    """Return the files by their options, `~` expanded; raises :class:`UserError` for one that cannot be written.

    Two options that name one file are refused too. Existing content is left as it is.
    """
    expanded = {option: _expanded(option, path) for option, path in files.items()}
    options: dict[Path, str] = {}
    for option, path in expanded.items():
        if path is None:
            continue
        _try(option, path)
        other = options.setdefault(path.resolve(), option)
        if other != option:
            raise UserError(f"{other} and {option} both name {path}; name a file for each.")
    return expanded


def _expanded(option: str, path: Path | None) -> Path | None:
    try:
        return path and path.expanduser()
    except RuntimeError as error:
        raise UserError(f"{option} {path} cannot be written: {error} Name another file.") from None


def _try(option: str, path: Path) -> None:
    try:
        if not path.parent.is_dir():
            raise UserError(f"{option} {path} cannot be written: its directory is not there; name another file.")
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            path.unlink()
        except FileExistsError:
            # A pipe without a reader would wait for one.
            if path.is_file() or path.is_dir() or not path.exists():
                os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written: {error.strerror}; name another file.") from error
