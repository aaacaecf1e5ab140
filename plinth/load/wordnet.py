"""Real texts with realistic tenants: WordNet's glosses, by the lexicographer file of each synset.

The lexicographer files (noun.animal, verb.motion, ...) are skewed in size and correlate with content, as tenants do.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plinth.errors import UserError

DIRECTORY = Path("/usr/share/wordnet")
PARTS = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}
# lexnames(5WN): the number of each lexicographer file.
FILES = [
    "adj.all",
    "adj.pert",
    "adv.all",
    "noun.Tops",
    "noun.act",
    "noun.animal",
    "noun.artifact",
    "noun.attribute",
    "noun.body",
    "noun.cognition",
    "noun.communication",
    "noun.event",
    "noun.feeling",
    "noun.food",
    "noun.group",
    "noun.location",
    "noun.motive",
    "noun.object",
    "noun.person",
    "noun.phenomenon",
    "noun.plant",
    "noun.possession",
    "noun.process",
    "noun.quantity",
    "noun.relation",
    "noun.shape",
    "noun.state",
    "noun.substance",
    "noun.time",
    "verb.body",
    "verb.change",
    "verb.cognition",
    "verb.communication",
    "verb.competition",
    "verb.consumption",
    "verb.contact",
    "verb.creation",
    "verb.emotion",
    "verb.motion",
    "verb.perception",
    "verb.possession",
    "verb.social",
    "verb.stative",
    "verb.weather",
    "adj.ppl",
]


@dataclass(frozen=True)
class Gloss:
    """A synset: its first word, its meaning, its part of speech and its lexicographer file."""

    word: str
    text: str
    part: str
    tenant: str


def parse(line: str) -> Gloss | None:
    """Parse a line of a data file (wndb(5WN)); None for the licence's lines."""
    if line.startswith("  "):
        return None
    fields, _, text = line.partition("|")
    _, file_number, part, _, word, *_ = fields.split()
    return Gloss(word.replace("_", " "), text.strip(), PARTS[part], FILES[int(file_number)])


def glosses(count: int, seed: int = 7, directory: Path = DIRECTORY) -> list[Gloss]:
    """Return a reproducible sample of the glosses."""
    if not (directory / "data.noun").exists():
        raise UserError(f"WordNet is not in {directory}; run `make bootstrap`, or `apt-get install wordnet-base`.")
    return random.Random(seed).sample(list(_all(directory)), count)  # noqa: S311 - a sample, not a secret


def _all(directory: Path) -> Iterator[Gloss]:
    for part in ("noun", "verb", "adj", "adv"):
        with (directory / f"data.{part}").open() as file:
            yield from (gloss for line in file if (gloss := parse(line)))
