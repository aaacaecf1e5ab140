"""The load gate through the gateway: where it is, and what it adds to a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rich.table import Table

from plinth.cli.common import outputs_of
from plinth.deployment.stack import Stack
from plinth.errors import UserError
from plinth.load import gateway_overhead as additions
from plinth.load import interleaved as turns
from plinth.load.dataset import dataset
from plinth.load.gate import Prepared, Server, measured, prepared
from plinth.load.locust_runner import Protocol, Schedule
from plinth.load.slo import Profile, Slo
from plinth.load.through_gateway import GatewayServer
from plinth.load.verdict import Verdict, lateness, soundness
from plinth.qdrant.client import Qdrant
from plinth.qdrant.spec import CollectionSpec
from plinth.system.console import console

DIRECT = "direct"
TOKEN_S = 24 * 3600
# So long the searches are sent whose CPU is counted.
CPU_S = 30.0
Say = Callable[[str], None]


def gateway_of(stack: Stack, outputs: dict[str, Any], profile: str) -> GatewayServer:
    """The gateway that a profile goes through; raises :class:`UserError` where none runs, or none that knows us."""
    where = outputs.get("gateway")
    if where is None:
        raise UserError(
            f"The profile '{profile}' goes through the gateway, and '{stack.env}' runs none; set "
            f"plinth:gateway.enabled to true and run `plinth up {stack.env}`, or name a profile that asks Qdrant."
        )
    key = where.get("signing_key")
    if not key:
        raise UserError(
            f"The profile '{profile}' needs a token of an organisation of its own, and the gateway of '{stack.env}' "
            "takes tokens that others sign alone (plinth:gateway.tokens.jwks); run it where the stack signs them."
        )
    tokens = stack.settings.gateway.tokens

    def token(organisation: str) -> str:
        from plinth.gateway.caller import Scope
        from plinth.gateway.tokens import issue_token

        return issue_token(
            key,
            organisation,
            "load",
            scopes=tuple(Scope),
            ttl_s=TOKEN_S,
            issuer=tokens.issuer,
            audience=tokens.audience,
            organisation_claim=tokens.organisation_claim,
            scopes_claim=tokens.scopes_claim,
        )

    return GatewayServer(where["url"], where["grpc_url"].partition("://")[2], token, where.get("ca_cert"))


def beside_direct(
    stack: Stack,
    server: Server,
    shipped: CollectionSpec,
    slo: Slo,
    profile_name: str,
    protocol: Protocol,
    say: Say,
    *,
    keep: bool,
) -> Verdict:
    """Compare the gateway with the Qdrant behind it by rounds in turn, and show what it adds."""
    profile, goal = slo.profile(profile_name), slo.gateway
    if goal is None:
        raise UserError(f"{stack.settings.slo.file} has no `gateway`, what it may add to a search; add it.")
    way = gateway_of(stack, outputs_of(stack), profile_name)
    data = dataset(profile.data, stack.home.cache, say)
    arguments = (server, shipped, data, protocol, stack.root / "load" / "locustfile.py", say)
    with (
        Qdrant(server.url, server.api_key, ca_cert=server.ca_cert) as client,
        prepared(client, *arguments, keep=keep, way=way) as through,
        prepared(client, *arguments, keep=keep, as_gateway=True) as direct,
    ):
        names = ("through the gateway", "direct")
        found = turns.interleaved(
            through.send,
            direct.send,
            profile,
            lambda number, side: say(f"Round {number} of {turns.PAIRS}, {names[side]}:"),
            turns.PAIRS,
        )
        cpu = _cpu(through, direct, profile, server.url, way.url, say)
        both = [
            measured(kept, None, profile, data, side.recall, side.not_ready)
            for side, kept in zip((through, direct), found, strict=True)
        ]
    rows = additions.added(*found, profile)
    _show(rows, cpu, protocol)
    own, others = (soundness(one, slo, profile) for one in both)
    late = next((reasons for one in both if (reasons := lateness(one, slo))), ())
    return additions.verdict(rows, cpu, goal, own, others, late)


def _cpu(through: Prepared, direct: Prepared, profile: Profile, qdrant: str, gateway: str, say: Say) -> additions.Cpu:
    """CPU of searches alone, sent as the profile's rate has them."""
    seconds = min(CPU_S, profile.duration_s)
    schedule = Schedule(profile.rate_per_s, 0, seconds, {additions.JUDGED: 1}, turns.PAIRS, profile.processes)
    say("Searches alone, for the CPU of each:")
    used = []
    for number, side in enumerate((direct, through)):
        with additions.watched({"qdrant": qdrant, "gateway": gateway}) as spent:
            sent = sum(result["sent"] for result in side.send(replace(schedule, number=schedule.number + number)))
        used.append({name: 1000 * found / max(1, sent) for name, found in spent.seconds.items()})
    return additions.Cpu(used[0]["qdrant"], used[1]["qdrant"], used[1]["gateway"])


def _show(rows: list[additions.Added], cpu: additions.Cpu, protocol: Protocol) -> None:
    table = Table(
        title=f"What the gateway adds over {protocol}, {turns.PAIRS} rounds each in turn", title_justify="left"
    )
    for column in ("operation", "percentile", "direct ms", "gateway ms", "added ms", "within"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    for row in rows:
        table.add_row(
            row.operation,
            f"p{row.percentile}",
            f"{row.direct:.1f}",
            f"{row.through:.1f}",
            f"{row.value:.1f}",
            f"{row.low:.1f} - {row.high:.1f}",
        )
    console.print(table)
    console.print(
        f"  CPU of a search: Qdrant {cpu.direct:.2f} ms direct; Qdrant {cpu.qdrant:.2f} ms and the gateway "
        f"{cpu.gateway:.2f} ms through it, {cpu.ratio:.1f} times Qdrant's more."
    )
