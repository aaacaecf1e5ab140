"""The points and queries of a load run: real embeddings with tenants, and the exact answers."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plinth.load.minilm import MiniLM
from plinth.load.wordnet import Gloss, glosses

TOP = 10
LARGE_TENANT = 0.05
RECIPE = "wordnet first clauses, all-MiniLM-L6-v2, sample 7, v1"


@dataclass(frozen=True)
class Dataset:
    """``vectors`` (n, d) and ``queries`` (q, d) are unit rows; tenants and parts are by row."""

    name: str
    vectors: npt.NDArray[np.float32]
    tenants: tuple[str, ...]
    parts: tuple[str, ...]
    words: tuple[str, ...]
    queries: npt.NDArray[np.float32]
    query_tenants: tuple[str, ...]
    query_parts: tuple[str, ...]

    def truth(self) -> list[set[int]]:
        """For each query the rows of its tenant's nearest ten, by exact search."""
        return [
            nearest(self.vectors, query, np.array([t == tenant for t in self.tenants]))
            for query, tenant in zip(self.queries, self.query_tenants, strict=True)
        ]

    def shares(self) -> dict[str, float]:
        """Each tenant's share of the points."""
        return {tenant: count / len(self.tenants) for tenant, count in Counter(self.tenants).most_common()}


def nearest(vectors: npt.NDArray[np.float32], query: npt.NDArray[np.float32], among: npt.NDArray[np.bool_]) -> set[int]:
    """The rows of the ten nearest by dot product among those allowed."""
    rows = np.flatnonzero(among)
    scores = vectors[rows] @ query
    return {int(row) for row in rows[np.argsort(-scores)[:TOP]]}


def wordnet(points: int, queries: int, cache: Path, on_progress: Callable[[str], None]) -> Dataset:
    """WordNet's glosses embedded by MiniLM; embedded once, then read from the cache directory."""
    sample = glosses(points + queries)
    described = json.dumps([RECIPE, points, queries, [gloss.text for gloss in sample]])
    digest = hashlib.sha256(described.encode()).hexdigest()[:12]
    vectors = _cached(cache / f"wordnet-{digest}.npz")
    if vectors is None:
        vectors = _embed(sample, on_progress)
        cache.mkdir(parents=True, exist_ok=True)
        partial = cache / f"wordnet-{digest}.partial.npz"
        np.savez(partial, vectors=vectors)
        partial.replace(cache / f"wordnet-{digest}.npz")
    stored, asked = sample[:points], sample[points:]
    present = {gloss.tenant for gloss in stored}
    kept = [row for row, gloss in enumerate(asked) if gloss.tenant in present]
    return Dataset(
        name=f"wordnet-{digest}",
        vectors=vectors[:points],
        tenants=tuple(gloss.tenant for gloss in stored),
        parts=tuple(gloss.part for gloss in stored),
        words=tuple(gloss.word for gloss in stored),
        queries=vectors[points:][kept],
        query_tenants=tuple(asked[row].tenant for row in kept),
        query_parts=tuple(asked[row].part for row in kept),
    )


def _embed(sample: list[Gloss], on_progress: Callable[[str], None]) -> npt.NDArray[np.float32]:
    told = -1

    def tell(share: float) -> None:
        nonlocal told
        if int(share * 4) > told:
            told = int(share * 4)
            on_progress(f"Embedding {len(sample)} WordNet glosses with MiniLM, once: {share:4.0%}")

    return MiniLM().embed([f"{gloss.word}: {gloss.text.split(';')[0]}" for gloss in sample], tell)


def _cached(path: Path) -> npt.NDArray[np.float32] | None:
    try:
        with np.load(path) as archive:
            found: npt.NDArray[np.float32] = archive["vectors"]
            return found
    except (FileNotFoundError, ValueError, zipfile.BadZipFile, KeyError):
        return None


def payload(dataset: Dataset, row: int) -> dict[str, Any]:
    """What is stored with a point."""
    return {"org_id": dataset.tenants[row], "model": dataset.parts[row], "word": dataset.words[row]}
