"""Growing the volumes of a StatefulSet: what to do, from what there is and what is wanted.

Kubernetes never changes the claim templates of a StatefulSet. So the claims are expanded one by one, the StatefulSet
is deleted without its pods, and whoever declares it makes it again with the new templates: it takes the running pods
back. Pure; :mod:`plinth.kubernetes.volume_expansion` carries the plan out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Claim:
    """A volume claim: what it asks for in bytes, its storage class, whether a volume is bound to it, its version."""

    name: str
    size: int
    storage_class: str | None
    bound: bool = True
    version: str = ""


@dataclass(frozen=True)
class Templates:
    """The claim templates of a StatefulSet that runs: bytes by template."""

    workload: str
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Expand:
    """Ask for more in a claim; bytes."""

    claim: str
    was: int
    wanted: int

    def __str__(self) -> str:
        return f"expand the claim {self.claim} from {gib(self.was)} to {gib(self.wanted)}"


@dataclass(frozen=True)
class Remake:
    """Delete a claim that no volume is bound to, as it was at ``version``: whoever declares it makes it again.

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
    """The steps in their order, or the sentences that say why there are none."""

    steps: tuple[Expand | Orphan | Remake, ...] = ()
    refusals: tuple[str, ...] = ()


def plan(
    workload: str,
    wanted: Mapping[str, int],
    templates: Templates | None,
    claims: Sequence[Claim],
    expandable: Mapping[str, bool],
) -> Growth:
    """How a StatefulSet's volumes come to their wanted sizes.

    ``wanted`` are bytes by claim template, ``templates`` None where the StatefulSet is not there, ``expandable`` says
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
    # While the StatefulSet is there it would make a deleted claim again from the old template.
    return Growth((*expansions, *((Orphan(workload),) if stale else ()), *remade))


def plan_alone(wanted: Mapping[str, int], claims: Sequence[Claim], expandable: Mapping[str, bool]) -> Growth:
    """How claims that no StatefulSet made come to their wanted sizes; ``wanted`` are bytes by claim."""
    return _grown([(claim, wanted[claim.name]) for claim in claims if claim.name in wanted], expandable)


def gib(size: int) -> str:
    """Bytes as people set them."""
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
    """Each claim that was made of a template, also those that a smaller cluster left."""
    for template in sorted(wanted):
        made = re.compile(rf"{re.escape(template)}-{re.escape(workload)}-\d+")
        for claim in sorted(claims, key=lambda claim: claim.name):
            if made.fullmatch(claim.name):
                yield template, claim
