"""Expanding the volumes of a StatefulSet: the steps, from the actual and the desired sizes.

Kubernetes never changes the claim templates of a StatefulSet. So the claims are expanded one by one, the StatefulSet
is deleted without its pods, and its owner re-creates it with the new templates: it adopts the running pods. Pure;
:mod:`plinth.kubernetes.volume_expansion` executes the plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Claim:
    """A volume claim: its requested bytes, its storage class, whether a volume is bound to it, its version."""

    name: str
    size: int
    storage_class: str | None
    bound: bool = True
    version: str = ""


@dataclass(frozen=True)
class Templates:
    """The claim templates of a running StatefulSet: bytes by template."""

    workload: str
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Expand:
    """Request a larger size for a claim; bytes."""

    claim: str
    was: int
    wanted: int

    def __str__(self) -> str:
        return f"expand the claim {self.claim} from {gib(self.was)} to {gib(self.wanted)}"


@dataclass(frozen=True)
class Remake:
    """Delete an unbound claim, as it was at ``version``; its owner re-creates it.

    The API server changes nothing of such a claim, and no byte was ever written there.
    """

    claim: str
    was: int
    wanted: int
    version: str

    def __str__(self) -> str:
        return f"make the claim {self.claim}, which has no volume yet, with {gib(self.wanted)} and not {gib(self.was)}"


@dataclass(frozen=True)
class Orphan:
    """Delete a StatefulSet and leave its pods running."""

    workload: str

    def __str__(self) -> str:
        return f"re-create the StatefulSet {self.workload} around its running pods"


@dataclass(frozen=True)
class Growth:
    """The steps in order, or the refusals that say why there are none."""

    steps: tuple[Expand | Orphan | Remake, ...] = ()
    refusals: tuple[str, ...] = ()


def plan(
    workload: str,
    wanted: Mapping[str, int],
    templates: Templates | None,
    claims: Sequence[Claim],
    expandable: Mapping[str, bool],
) -> Growth:
    """Return the plan that brings a StatefulSet's volumes to their desired sizes.

    ``wanted`` are bytes by claim template, ``templates`` None where the StatefulSet does not exist, ``expandable`` says
    of each storage class whether its volumes can grow.
    """
    grown = _grown([(claim, wanted[template]) for template, claim in _claims_of(workload, wanted, claims)], expandable)
    if grown.refusals:
        return grown
    stale = templates is not None and any(
        templates.sizes.get(template) not in (None, size) for template, size in wanted.items()
    )
    expansions = [step for step in grown.steps if isinstance(step, Expand)]
    remade = [step for step in grown.steps if isinstance(step, Remake)]
    # As long as the StatefulSet exists it re-creates a deleted claim from the old template.
    return Growth((*expansions, *((Orphan(workload),) if stale else ()), *remade))


def plan_alone(wanted: Mapping[str, int], claims: Sequence[Claim], expandable: Mapping[str, bool]) -> Growth:
    """Return the plan for claims that no StatefulSet created; ``wanted`` are bytes by claim."""
    return _grown([(claim, wanted[claim.name]) for claim in claims if claim.name in wanted], expandable)


def gib(size: int) -> str:
    """Return bytes as text in the unit of the settings."""
    return f"{size / GIB:g} GiB"


def _grown(wanted: Sequence[tuple[Claim, int]], expandable: Mapping[str, bool]) -> Growth:
    refusals = tuple(_refusals(wanted, expandable))
    if refusals:
        return Growth(refusals=refusals)
    return Growth(tuple(_step(claim, size) for claim, size in wanted if claim.size != size))


def _step(claim: Claim, size: int) -> Expand | Remake:
    if claim.bound:
        return Expand(claim.name, claim.size, size)
    return Remake(claim.name, claim.size, size, claim.version)


def _refusals(wanted: Sequence[tuple[Claim, int]], expandable: Mapping[str, bool]) -> Iterator[str]:
    for claim, size in wanted:
        if not claim.bound:
            continue
        if claim.size > size:
            yield (
                f"The claim {claim.name} has {gib(claim.size)} and {gib(size)} are set: volumes only grow; "
                f"set {gib(claim.size)} or more, or restore into a new environment."
            )
        elif claim.size < size and not expandable.get(claim.storage_class or "", False):
            yield (
                f"The claim {claim.name} would grow from {gib(claim.size)} to {gib(size)}, which its storage class "
                f"'{claim.storage_class or ''}' does not allow; set allowVolumeExpansion on the class if its driver "
                f"can, keep {gib(claim.size)}, or restore into a new environment."
            )


def _claims_of(workload: str, wanted: Mapping[str, int], claims: Sequence[Claim]) -> Iterator[tuple[str, Claim]]:
    """Yield each claim that was created from a template, including those that a smaller cluster left."""
    for template in sorted(wanted):
        made = re.compile(rf"{re.escape(template)}-{re.escape(workload)}-\d+")
        for claim in sorted(claims, key=lambda claim: claim.name):
            if made.fullmatch(claim.name):
                yield template, claim
