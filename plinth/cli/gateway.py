"""`plinth gateway token`: tokens for development."""

from __future__ import annotations

from typing import Annotated

import typer

from plinth.cli.common import Env, Json, print_json, print_line, stack_of
from plinth.errors import UserError

commands = typer.Typer(help="The gateway: tokens for development.", no_args_is_help=True)

TTL_S = 3600
Organisation = Annotated[str, typer.Option("--org", help="The organisation.", show_default=False)]
User = Annotated[str, typer.Option("--user", help="The user, of that organisation.", show_default=False)]
Ttl = Annotated[int, typer.Option("--ttl", help="How long it is valid, in seconds.", min=1)]
Header = Annotated[bool, typer.Option("--header", help="Print the whole header, for `curl -H @FILE`.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope", help="read, write or admin; several times for several. All when absent.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="gateway")


@commands.command()
def token(
    env: Env,
    org: Organisation,
    user: User,
    ttl: Ttl = TTL_S,
    scope: Scopes = None,
    header: Header = False,
    json: Json = False,
) -> None:
    """A token for development, signed with the stack's own key. Example: plinth gateway token local --org a --user me

    It is refused where the gateway takes tokens of an identity provider alone.
    """
    from plinth.gateway.caller import Scope
    from plinth.gateway.tokens import issue_token

    stack = stack_of(env)
    outputs = stack.outputs()
    deployed = outputs.get("gateway")
    if deployed is None and (reason := outputs.get("left_out", {}).get("gateway")):
        raise UserError(f"The gateway of '{env}' is left out: {reason}.", exit_code=1)
    if deployed is None:
        raise UserError(
            f"'{env}' runs no gateway; set plinth:gateway.enabled to true and run `plinth up {env}`.", exit_code=1
        )
    key = deployed.get("signing_key")
    if not key:
        raise UserError(
            f"The gateway of '{env}' takes tokens that others sign (plinth:gateway.tokens.jwks), and has no key "
            "to sign with; ask your identity provider for one.",
            exit_code=1,
        )
    tokens = stack.settings.gateway.tokens
    unknown = sorted(set(scope or ()) - {known.value for known in Scope})
    if unknown:
        raise UserError(f"There is no scope {unknown[0]}; there are {', '.join(Scope)}.")
    scopes = tuple(Scope(name) for name in scope) if scope else tuple(Scope)
    signed = issue_token(
        key,
        org,
        user,
        scopes=scopes,
        ttl_s=ttl,
        issuer=tokens.issuer,
        audience=tokens.audience,
        organisation_claim=tokens.organisation_claim,
        scopes_claim=tokens.scopes_claim,
    )
    if json:
        print_json({"token": signed, "expires_in": ttl})
    else:
        print_line(f"authorization: Bearer {signed}" if header else signed)
