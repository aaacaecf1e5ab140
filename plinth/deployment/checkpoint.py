"""The state file of Pulumi's local backend, read without the `pulumi` binary: starting that takes longer than reading.

What is read is what Pulumi 3 writes: checkpoint version 3, secrets encrypted with a passphrase (PBKDF2-SHA256 of a
million rounds, AES-256-GCM). Anything else is left to Pulumi.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plinth.errors import UserError

VERSION = 3
MASK = "********"
STACK = "pulumi:pulumi:Stack"
# Marks a value that is no plain one, and the mark of a secret among them.
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET_MARK = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105  # a constant of Pulumi's
ROUNDS = 1_000_000
KEY_BYTES = 32


class Unsupported(Exception):
    """Pulumi understands it, and this module does not."""


class WrongPassphrase(Exception):
    """The passphrase does not open the state's secrets."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of one stack as it was last written."""

    deployment: Mapping[str, Any]

    def resources(self) -> list[dict[str, Any]]:
        """What is deployed, secrets encrypted."""
        return list(self.deployment.get("resources") or [])

    def pending(self) -> list[dict[str, Any]]:
        """What a run had begun when it was killed: each operation with its resource."""
        return list(self.deployment.get("pending_operations") or [])

    def outputs(self, passphrase: Callable[[], str]) -> dict[str, Any]:
        """The stack's outputs, secrets in the clear; the passphrase is read where there is a secret."""
        encrypted = self._outputs()
        if not _has_secret(encrypted):
            return encrypted
        key = _key(self.deployment, passphrase())
        revealed: dict[str, Any] = _secrets_replaced(encrypted, lambda text: json.loads(_decrypt(key, text)))
        return revealed

    def masked_outputs(self) -> dict[str, Any]:
        """The stack's outputs with :data:`MASK` for each secret."""
        masked: dict[str, Any] = _secrets_replaced(self._outputs(), lambda _: MASK)
        return masked

    def _outputs(self) -> dict[str, Any]:
        return next((dict(each.get("outputs") or {}) for each in self.resources() if each.get("type") == STACK), {})


def made_and_begun(
    resources: Iterable[Mapping[str, Any]], pending: Iterable[Mapping[str, Any]], types: Collection[str]
) -> tuple[set[str], set[str]]:
    """Of the resources of some types: the ids of what was made, the names of what was only begun."""
    made = {resource["id"] for resource in resources if resource["type"] in types and "id" in resource}
    begun = [operation["resource"] for operation in pending if operation["type"] == "creating"]
    return made, {str(one.get("inputs", {}).get("name", "")) for one in begun if one["type"] in types}


def state_file(backend: Path, project: str, stack: str) -> Path:
    """Where the local backend in a directory has a stack's state."""
    return backend / ".pulumi" / "stacks" / project / f"{stack}.json"


def read(path: Path) -> Checkpoint | None:
    """The state, or None where there is none.

    Raises :class:`UserError` for a file that is damaged, and :class:`Unsupported` for one that is of another version.
    """
    if path.with_name(f"{path.name}.gz").exists():
        raise Unsupported("it is compressed")
    try:
        document = _document(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}, the state of '{path.stem}', {_damage(error)}. {_remedy(path)}", exit_code=1
        ) from error
    if document.get("version") != VERSION:
        raise Unsupported(f"its version is {document.get('version')}")
    return Checkpoint((document.get("checkpoint") or {}).get("latest") or {})


def drop_damaged_attributes(backend: Path) -> list[Path]:
    """Remove the attribute files of a local backend that are no JSON, and return them.

    Pulumi's storage library (gocloud.dev/blob/fileblob) writes one next to each file, without a rename. A run that is
    killed at that moment leaves it empty, and Pulumi then refuses the whole state ("failed to load checkpoint: EOF").
    It does without a file that is absent: it holds a content type and an MD5, which Pulumi does not use.
    """
    damaged = [path for path in sorted((backend / ".pulumi").rglob("*.attrs")) if not _is_json(path)]
    for path in damaged:
        path.unlink(missing_ok=True)
    return damaged


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    except OSError:  # of a run that ends, or not ours to read: Pulumi says so itself
        return True
    return True


def _document(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_bytes())
    if not isinstance(document, dict) or "checkpoint" not in document:
        raise ValueError("it holds something else")
    return document


def _damage(error: Exception) -> str:
    return f"cannot be read ({error.strerror})" if isinstance(error, OSError) else "is damaged or cut off"


def _remedy(path: Path) -> str:
    previous = path.with_name(f"{path.name}.bak")
    command = f"then `plinth refresh {path.stem}` and `plinth up {path.stem}`"
    try:
        _document(previous)
    except (OSError, ValueError):
        return f"The copy before it ({previous}) cannot be read either; put a copy of your own there, {command}."
    return f"Pulumi has kept the state before it: {shlex.join(('cp', str(previous), str(path)))}, {command}."


def _secrets_replaced(value: Any, replace: Callable[[str], Any]) -> Any:
    if isinstance(value, dict):
        if SIGNATURE not in value:
            return {name: _secrets_replaced(inner, replace) for name, inner in value.items()}
        if value[SIGNATURE] != SECRET_MARK or not isinstance(value.get("ciphertext"), str):
            raise Unsupported("it holds assets or references")
        return replace(value["ciphertext"])
    if isinstance(value, list):
        return [_secrets_replaced(inner, replace) for inner in value]
    return value


def _has_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return SIGNATURE in value or any(map(_has_secret, value.values()))
    return isinstance(value, list) and any(map(_has_secret, value))


def _key(deployment: Mapping[str, Any], passphrase: str) -> bytes:
    """The key of the state's secrets; raises :class:`WrongPassphrase` where the passphrase is not theirs."""
    provider = deployment.get("secrets_providers") or {}
    version, _, rest = str((provider.get("state") or {}).get("salt", "")).partition(":")
    salt, _, proof = rest.partition(":")
    if provider.get("type") != "passphrase" or version != "v1":
        raise Unsupported("its secrets are encrypted otherwise")
    key = hashlib.pbkdf2_hmac("sha256", passphrase.encode(), base64.b64decode(salt), ROUNDS, KEY_BYTES)
    if _decrypt(key, proof) != "pulumi":
        raise WrongPassphrase
    return key


def _decrypt(key: bytes, text: str) -> str:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    version, nonce, encrypted = text.split(":")
    if version != "v1":
        raise Unsupported("its secrets are encrypted otherwise")
    try:
        return AESGCM(key).decrypt(base64.b64decode(nonce), base64.b64decode(encrypted), None).decode()
    except InvalidTag as error:
        raise WrongPassphrase from error
