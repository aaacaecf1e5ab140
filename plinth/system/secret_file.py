"""Secrets in files, one line each: every program of Plinth reads them here, so that all read the same text."""

from __future__ import annotations

from pathlib import Path

from plinth.errors import UserError


def read_secret(path: Path) -> str:
    """Return the secret: the whole text without the newline at its end. Raises :class:`UserError`."""
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}), and a secret is in it; run `plinth up` again.", exit_code=1
        ) from error
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text, and a secret is in it; write it as UTF-8.", exit_code=1) from None
