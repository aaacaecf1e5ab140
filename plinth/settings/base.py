"""The base of all settings: the model, and the types of their values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, ValidationInfo

from plinth.system.strict_model import StrictModel

# Replaces a secret where only its ciphertext is known.
ENCRYPTED = "(encrypted)"
Port = Annotated[int, Field(ge=1, le=65535)]
# The key of the project's directory in the context of a validation.
ROOT = "root"
_URL = re.compile(r"https?://(?:[^ \\%]|%[0-9A-Fa-f]{2})+", re.IGNORECASE)
_HOST = re.compile(r"[^\s{}|^`%\\]+")
_LOGIN = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:%@-]*")


def _is_line(value: SecretStr) -> SecretStr:
    """Accept a secret that every program reads alike: some trim a password, and a newline ends one."""
    text = value.get_secret_value()
    if text != text.strip() or not text.isprintable():
        raise ValueError("a secret is one line without a space at its beginning or end, and without control characters")
    return value


def _is_header(value: SecretStr) -> SecretStr:
    if not _is_line(value).get_secret_value().isascii():
        raise ValueError("this travels in a header of HTTP, so it has letters, digits and signs of ASCII alone")
    return value


def _is_url(text: str) -> str:
    """Accept a URL that Go's parser accepts too: Prometheus and Alertmanager start with no other."""
    try:
        parts = urlsplit(text)
        login, _, _ = parts.netloc.rpartition("@")
        # Reading the port raises ValueError where it is not a number.
        good = _URL.fullmatch(text) and _HOST.fullmatch(parts.hostname or "") and parts.port != 0
    except ValueError:
        good = None
    if not good or not text.isprintable() or not _LOGIN.fullmatch(login):
        raise ValueError(
            "an address here is http://host[:port][/path] or https://..., with a space or a % of its own written as "
            "%20 or %25"
        )
    return text


def _is_secret_url(value: SecretStr, info: ValidationInfo) -> SecretStr:
    text = _is_line(value).get_secret_value()
    # Settings from a file have a context; a model that is built in code accepts any text as an address.
    if info.context is not None and text != ENCRYPTED:
        _is_url(text)
    return value


def _anchored(path: str, info: ValidationInfo) -> str:
    """Return the path below the project, where it is known (:data:`ROOT` of the context); `~` is the caller's home."""
    if not path.strip() or "\0" in path:
        raise ValueError("name a file or a directory")
    root = (info.context or {}).get(ROOT)
    try:
        return path if root is None else str(root / Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{str(error).rstrip('.').lower()}; write the whole path") from None


Secret = Annotated[SecretStr, AfterValidator(_is_line)]
Url = Annotated[str, AfterValidator(_is_url)]
# In the settings of a project it is absolute, for every reader and from every working directory.
ProjectPath = Annotated[str, AfterValidator(_anchored)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_is_header)]
SecretUrl = Annotated[SecretStr, AfterValidator(_is_secret_url)]


class Model(StrictModel):
    """A group of keys; an unknown key is an error."""

    model_config = ConfigDict(allow_inf_nan=False)
