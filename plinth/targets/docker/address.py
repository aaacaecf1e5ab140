"""The Docker engine's address: the setting, else what the docker client itself uses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plinth.errors import UserError

DEFAULT = "unix:///var/run/docker.sock"
SETTING = "plinth:docker.host"


@dataclass(frozen=True)
class Address:
    """An engine's address and what named it; ``certificates`` is a directory of ca.pem, cert.pem and key.pem."""

    host: str
    source: str
    certificates: Path | None = None
    is_context: bool = False


def engine_address(setting: str | None, environment: Mapping[str, str], home: Path) -> Address:
    """Return the first that exists of: the setting, DOCKER_HOST, the active docker context, the default socket.

    Raises :class:`UserError` for a context that cannot be read.
    """
    configuration = Path(environment.get("DOCKER_CONFIG") or home / ".docker")
    if host := setting or environment.get("DOCKER_HOST"):
        source = SETTING if setting else "DOCKER_HOST"
        return Address(host, source, _certificates(host, environment, configuration))
    chosen, source = environment.get("DOCKER_CONTEXT"), "DOCKER_CONTEXT"
    if not chosen:
        chosen, source = _current(configuration / "config.json"), f"`docker context use` in {configuration}"
    if not chosen or chosen == "default":
        return Address(DEFAULT, "the usual socket", _certificates(DEFAULT, environment, configuration))
    return _of_context(chosen, source, configuration / "contexts")


def plugin_variables(address: Address) -> dict[str, str]:
    """Return the environment variables by which Pulumi's plugin connects to this engine.

    By default it prefers DOCKER_CONTEXT to the address that it is given, uses DOCKER_CERT_PATH for a socket too, and
    does not find the certificates of a context or of DOCKER_TLS_VERIFY alone. As its inputs they would be recorded:
    certificates that were moved since, or that another user has elsewhere, would stop every later `up` and `down`.
    """
    return {"DOCKER_CONTEXT": "", "DOCKER_CERT_PATH": str(address.certificates or "")}


def _certificates(host: str, environment: Mapping[str, str], configuration: Path) -> Path | None:
    given = environment.get("DOCKER_CERT_PATH")
    # An empty variable is one that is not set, as for the docker client.
    if not host.startswith("tcp://") or not (given or environment.get("DOCKER_TLS_VERIFY")):
        return None
    # The plugin runs in another directory.
    return Path(given or configuration).absolute()


def _current(file: Path) -> str | None:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; mend its rights, or set {SETTING}.") from error
    return _object(text, file).get("currentContext") or None


def _of_context(name: str, source: str, contexts: Path) -> Address:
    key = hashlib.sha256(name.encode()).hexdigest()
    file = contexts / "meta" / key / "meta.json"
    try:
        about = _object(file.read_text(encoding="utf-8"), file)
    except OSError as error:
        raise UserError(
            f"The docker context '{name}' that {source} names does not exist; `docker context ls` lists those that do. "
            f"Choose one, or set {SETTING}."
        ) from error
    host = about.get("Endpoints", {}).get("docker", {}).get("Host") or DEFAULT
    certificates = contexts / "tls" / key / "docker"
    return Address(
        host, f"the docker context '{name}'", certificates if certificates.is_dir() else None, is_context=True
    )


def _object(text: str, file: Path) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}); mend it, or set {SETTING}.") from error
    if not isinstance(document, dict):
        raise UserError(f"{file} holds no JSON object; mend it, or set {SETTING}.")
    return document
