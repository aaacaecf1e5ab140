"""`plinth secret ENV KEY`: a secret of the settings, encrypted into their file."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from plinth.cli.common import Env
from plinth.deployment.automation import encrypt
from plinth.errors import UserError
from plinth.settings.loader import NAMESPACE, project_root, refuse_value
from plinth.settings.secret_keys import is_secret, secret_keys
from plinth.system.console import console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(secret)


def secret(
    env: Env,
    key: Annotated[str, typer.Argument(help="Such as redis.password or postgres.databases[0].password.")],
) -> None:
    """Encrypt a secret of your own into stacks/Pulumi.<env>.yaml; `up` then applies it.

    The value is asked for, or read from standard input: no argument shows it. What you do not set is generated.
    Example: openssl rand -hex 24 | plinth secret prod qdrant.api_key
    """
    key = key.removeprefix(f"{NAMESPACE}:")
    if not is_secret(key):
        raise UserError(f"{NAMESPACE}:{key} is no secret setting; those are {', '.join(sorted(secret_keys()))}.")
    value = _value(key)
    if not value:
        raise UserError(f"No value came for {NAMESPACE}:{key}; type one, or give it on standard input.")
    refuse_value(key, value)
    encrypt(project_root(), env, key, value)
    console.print(f"stacks/Pulumi.{env}.yaml holds {NAMESPACE}:{key}, encrypted; `plinth up {env}` applies it.")


def _value(key: str) -> str:
    if sys.stdin.isatty():
        asked: str = typer.prompt(f"{NAMESPACE}:{key}", hide_input=True, confirmation_prompt=True)
        return asked
    return sys.stdin.read().rstrip("\r\n")
