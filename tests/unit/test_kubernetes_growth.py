"""Growing volumes: the plan reaches the wanted sizes, never shrinks, and is done once."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from plinth.kubernetes.volume_expansion_plan import (
    GIB,
    Claim,
    Expand,
    Growth,
    Orphan,
    Remake,
    Templates,
    plan,
    plan_alone,
)

SIZES = st.integers(1, 500).map(lambda gib: gib * GIB)
WANTED = st.fixed_dictionaries({"storage": SIZES, "snapshots": SIZES})
CLASSES = st.sampled_from(["fast", "rigid"])
EXPANDABLE = {"fast": True, "rigid": False}


@st.composite
def found(draw: st.DrawFn) -> tuple[Templates | None, list[Claim]]:
    nodes, classes = draw(st.integers(0, 4)), draw(CLASSES)
    claims = [
        Claim(f"{template}-qdrant-{number}", draw(SIZES), classes, draw(st.booleans()), "7")
        for template in ("storage", "snapshots")
        for number in range(nodes)
    ]
    templates = draw(st.none() | WANTED.map(lambda sizes: Templates("qdrant", sizes)))
    # Someone else's, whose names begin alike.
    return templates, [*claims, Claim("storage-qdrant-two-0", 1, "rigid"), Claim("other", 1, "rigid")]


@given(WANTED, found())
def test_a_plan_reaches_the_sizes_and_a_second_one_is_empty(
    wanted: dict[str, int], there: tuple[Templates | None, list[Claim]]
) -> None:
    templates, claims = there
    growth = plan("qdrant", wanted, templates, claims, EXPANDABLE)
    assume(not growth.refusals)
    sizes = {claim.name: claim.size for claim in claims}
    bound = {claim.name: claim.bound for claim in claims}
    for step in growth.steps:
        if isinstance(step, Expand):
            assert sizes[step.claim] == step.was < step.wanted
            assert bound[step.claim]
            sizes[step.claim] = step.wanted
        if isinstance(step, Remake):
            assert sizes[step.claim] == step.was != step.wanted
            assert not bound[step.claim]
            assert step.version == "7"
            sizes[step.claim] = step.wanted
    for name, size in sizes.items():
        template, _, rest = name.partition("-")
        if rest.startswith("qdrant-") and rest.count("-") == 1:
            assert size == wanted[template]
    # The StatefulSet goes once every volume is as its new templates say, and before it could make a claim of the old.
    kinds = [type(step) for step in growth.steps]
    assert kinds == sorted(kinds, key=(Expand, Orphan, Remake).index)
    assert kinds.count(Orphan) == (1 if templates and templates.sizes != wanted else 0)
    after = [replace(claim, size=sizes[claim.name]) for claim in claims]
    assert plan("qdrant", wanted, Templates("qdrant", wanted), after, EXPANDABLE) == Growth()


@given(WANTED, found())
def test_nothing_shrinks_and_nothing_grows_that_cannot(
    wanted: dict[str, int], there: tuple[Templates | None, list[Claim]]
) -> None:
    templates, claims = there
    growth = plan("qdrant", wanted, templates, claims, EXPANDABLE)
    bound = [claim for claim in claims if claim.bound]
    own = [claim for claim in bound if claim.name.rpartition("-")[0] in ("storage-qdrant", "snapshots-qdrant")]
    shrinks = [claim for claim in own if claim.size > wanted[claim.name.partition("-")[0]]]
    stuck = [
        claim
        for claim in own
        if claim.size < wanted[claim.name.partition("-")[0]] and not EXPANDABLE[claim.storage_class or ""]
    ]
    assert len(growth.refusals) == len(shrinks) + len(stuck)
    for claim in (*shrinks, *stuck):
        assert any(claim.name in sentence for sentence in growth.refusals)
    assert not (growth.refusals and growth.steps)


def test_a_run_that_was_cut_short_goes_on_where_it_stopped() -> None:
    wanted = {"storage": 20 * GIB}
    claims = [Claim("storage-qdrant-0", 20 * GIB, "fast"), Claim("storage-qdrant-1", 10 * GIB, "fast")]
    before = Templates("qdrant", {"storage": 10 * GIB})
    half = plan("qdrant", wanted, before, claims, EXPANDABLE)
    assert half.steps == (Expand("storage-qdrant-1", 10 * GIB, 20 * GIB), Orphan("qdrant"))
    grown = [Claim(claim.name, 20 * GIB, "fast") for claim in claims]
    assert plan("qdrant", wanted, before, grown, EXPANDABLE).steps == (Orphan("qdrant"),)
    assert plan("qdrant", wanted, None, grown, EXPANDABLE).steps == ()


def test_a_step_says_what_it_does() -> None:
    assert str(Expand("storage-qdrant-0", 10 * GIB, 20 * GIB)) == (
        "expand the claim storage-qdrant-0 from 10 GiB to 20 GiB"
    )


@given(SIZES, SIZES, CLASSES)
def test_a_claim_of_its_own_grows_where_it_can_and_never_shrinks(size: int, wanted: int, storage_class: str) -> None:
    claims = [Claim("backup-work", size, storage_class), Claim("data-redis-0", 1, "rigid")]
    growth = plan_alone({"backup-work": wanted}, claims, EXPANDABLE)
    if size == wanted:
        assert growth == Growth()
    elif size < wanted and EXPANDABLE[storage_class]:
        assert growth == Growth((Expand("backup-work", size, wanted),))
    else:
        assert not growth.steps
        assert [sentence.startswith("The claim backup-work ") for sentence in growth.refusals] == [True]
