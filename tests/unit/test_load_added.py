"""The verdict on what the gateway adds to a search."""

from __future__ import annotations

import pytest

from plinth.load.dataset_points import organisation_of, stored_by_gateway
from plinth.load.gateway_overhead import Added, Cpu, verdict
from plinth.load.slo import load_slo
from plinth.load.verdict import Verdict
from tests.conftest import ROOT

GOAL = load_slo(ROOT / "load" / "slo.yaml").gateway
assert GOAL is not None
WITHIN, CHEAP = (1.0, 2.0), Cpu(direct=1.0, qdrant=1.0, gateway=1.4)
DEAR = Cpu(direct=1.0, qdrant=1.2, gateway=1.4)
LATE = ("the generator ran late",)


@pytest.mark.parametrize(
    ("interval", "cpu", "sides", "late", "word"),
    [
        (WITHIN, CHEAP, (None, None), (), "pass"),
        ((2.0, 4.0), CHEAP, (None, None), (), "void"),
        ((3.1, 4.0), CHEAP, (None, None), (), "fail"),
        ((3.1, 4.0), CHEAP, (None, None), LATE, "void"),
        (WITHIN, DEAR, (None, None), (), "fail"),
        (WITHIN, CHEAP, (Verdict("fail", ("errors",)), None), (), "fail"),
        (WITHIN, CHEAP, (None, Verdict("fail", ("errors",))), (), "void"),
        (None, CHEAP, (None, None), (), "void"),
    ],
)
def test_the_verdict_is_on_searches_and_their_cpu(
    interval: tuple[float, float] | None,
    cpu: Cpu,
    sides: tuple[Verdict | None, Verdict | None],
    late: tuple[str, ...],
    word: str,
) -> None:
    slow = Added("upsert", 95, 1.0, 100.0, 90.0, 110.0)
    found = [slow, *([Added("search", 95, 4.0, 5.5, *interval)] if interval else [])]
    assert GOAL is not None
    assert verdict(found, cpu, GOAL, *sides, late).word == word


def test_cpu_is_what_both_take_beyond_a_direct_search() -> None:
    assert DEAR.ratio == pytest.approx(1.6)


def test_points_are_stored_as_the_gateway_finds_them() -> None:
    name = "plinth_load_gateway-d98b918b5158_172fc7"
    assert organisation_of(name) == ("plinth-load-gateway_d98b918b5158", "172fc7")
    stored = stored_by_gateway(name)
    assert stored.scratch == "plinth-load-gateway_d98b918b5158"
    assert len({stored.identifier(row) for row in range(100)}) == 100
    assert stored.row({"payload": {"_plinth_id": "7"}}) == 7
