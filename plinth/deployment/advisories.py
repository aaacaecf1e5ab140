"""Versions with published holes: a dated list in config/advisories.yaml, compared with the images of an environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path

from pydantic import Field

from plinth.errors import UserError
from plinth.system.config_file import load
from plinth.system.strict_model import StrictModel
from plinth.system.versions import numbers
from plinth.targets.images import without_digest

FILE = Path("config") / "advisories.yaml"
# What follows the numbers is a variant's name, as in `7.4.9-bookworm`; the tag `8dce6da` is a commit's.
_VERSION = re.compile(r"v?\d+(\.\d+)*(?![0-9A-Za-z.])")


class Advisory(StrictModel):
    """One published hole. ``fixed`` is the first good version of each release line, ``since`` the first bad one."""

    id: str
    image: str = Field(description="A key of config/images.yaml.")
    since: str = "0"
    fixed: tuple[str, ...] = Field(min_length=1)
    effect: str
    source: str

    def affects(self, version: str) -> bool:
        """Whether a version has the hole; a tag that is no version, such as a commit's, cannot be told and has none."""
        number = numbers(version)
        if not _VERSION.match(version) or number < numbers(self.since):
            return False
        fixes = [numbers(fix) for fix in self.fixed]
        same_line = [fix for fix in fixes if number[: len(fix) - 1] == fix[:-1]]
        return number < max(same_line or fixes)


class Advisories(StrictModel):
    """The whole list, and the day on which it was right."""

    as_of: date
    advisories: tuple[Advisory, ...]


def load_advisories(root: Path) -> Advisories:
    """Read config/advisories.yaml; raises :class:`UserError` naming the key that is wrong."""
    return load(root / FILE, Advisories)


def refuse_known_holes(references: Mapping[str, str], advisories: Advisories, accepted: Mapping[str, str]) -> None:
    """Raise one :class:`UserError` for the images (references by key) that have a hole which nobody accepted."""
    if problems := list(_problems(references, advisories, accepted)):
        raise UserError(" ".join(problems))


def _problems(references: Mapping[str, str], advisories: Advisories, accepted: Mapping[str, str]) -> Iterator[str]:
    for advisory in advisories.advisories:
        reference = references.get(advisory.image, "")
        version = without_digest(reference).rpartition("/")[2].partition(":")[2]
        if advisory.affects(version) and advisory.id not in accepted:
            yield (
                f"The image {without_digest(reference)} has {advisory.id}: {advisory.effect} ({advisory.source}, "
                f"list of {advisories.as_of}); take {' or '.join(advisory.fixed)}, or accept it with a reason in "
                f"plinth:accepted_advisories: {{{advisory.id}: why}}."
            )
