"""The points and queries of a load run: embeddings with tenants, and the exact answers, cached on disk by content."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plinth.load.slo import Data
from plinth.load.synthetic_vectors import generate, intrinsic_dimension
from plinth.load.wordnet import Gloss, glosses

TOP = 10
LARGE_TENANT = 0.05
GENERATED = "power-law spectrum, Zipf clusters and tenants, seed 7, v1"
RECIPE = "wordnet first clauses, all-MiniLM-L6-v2, sample 7, v1"


@dataclass(frozen=True)
class Dataset:
    """A data set: ``vectors`` (n, d) and ``queries`` (q, d) are unit rows; tenants, parts and words are by row."""

    name: str
    vectors: npt.NDArray[np.float32]
    tenants: tuple[str, ...]
    parts: tuple[str, ...]
    words: tuple[str, ...]
    queries: npt.NDArray[np.float32]
    query_tenants: tuple[str, ...]
    query_parts: tuple[str, ...]
    query_words: tuple[str, ...]

    @cached_property
    def truth(self) -> list[set[int]]:
        """Return for each query the rows of its tenant's nearest ten, by exact search."""
        tenants = np.array(self.tenants)
        within = {tenant: tenants == tenant for tenant in set(self.query_tenants)}
        return [
            nearest(self.vectors, query, within[tenant])
            for query, tenant in zip(self.queries, self.query_tenants, strict=True)
        ]

    @cached_property
    def described(self) -> str:
        """Return name, size, tenants and intrinsic dimension, which is 15 to 30 for real text embeddings."""
        size = f"{len(self.vectors)} x {self.vectors.shape[1]}, {len(self.shares())} tenants"
        return f"{self.name}: {size}, intrinsic dimension {intrinsic_dimension(self.vectors):.0f}"

    def shares(self) -> dict[str, float]:
        """Return each tenant's share of the points."""
        return {tenant: count / len(self.tenants) for tenant, count in Counter(self.tenants).most_common()}


def nearest(vectors: npt.NDArray[np.float32], query: npt.NDArray[np.float32], among: npt.NDArray[np.bool_]) -> set[int]:
    """Return the ten rows with the highest dot product among those allowed."""
    rows = np.flatnonzero(among)
    scores = vectors[rows] @ query
    if len(rows) > TOP:
        rows = rows[np.argpartition(-scores, TOP - 1)[:TOP]]
    return {int(row) for row in rows}


def dataset(wanted: Data, cache: Path | None, on_progress: Callable[[str], None]) -> Dataset:
    """Return the data set of a profile; without a cache directory it is generated, or read from Plinth's image."""
    if wanted.source == "wordnet":
        if cache is None:
            from plinth.load.dataset_files import of_image

            return of_image(wanted)
        return wordnet(wanted.points, wanted.queries, cache, on_progress)
    return generated(wanted, cache, on_progress)


def generated(wanted: Data, cache: Path | None, on_progress: Callable[[str], None]) -> Dataset:
    """Generate vectors that resemble embeddings, of any size; three in ten points have the rarer model."""
    recipe = json.dumps([GENERATED, wanted.points, wanted.queries, wanted.dimensions, wanted.tenants])
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    name = f"generated-{digest}"
    kept = cache / f"{name}.npz" if cache else None
    arrays = _cached(kept, "vectors", "tenants", "queries", "query_tenants") if kept else None
    if arrays is None:
        on_progress(f"Generating {wanted.points} x {wanted.dimensions} vectors{', once' if kept else ''}")
        made = generate(wanted.points, wanted.dimensions, wanted.tenants, wanted.queries, seed=7)
        arrays = (made.vectors, made.tenants, made.queries, made.query_tenants)
        if kept:
            _keep(kept, vectors=arrays[0], tenants=arrays[1], queries=arrays[2], query_tenants=arrays[3])
    vectors, tenants, queries, query_tenants = arrays
    present = np.isin(query_tenants, tenants)
    queries, query_tenants = queries[present], query_tenants[present]

    def parts(count: int) -> tuple[str, ...]:
        return tuple("rare" if row % 10 < 3 else "common" for row in range(count))

    def words(count: int) -> tuple[str, ...]:
        return tuple(f"word{row % 200}" for row in range(count))

    return Dataset(
        name=name,
        vectors=vectors,
        tenants=tuple(f"t{tenant}" for tenant in tenants),
        parts=parts(len(vectors)),
        words=words(len(vectors)),
        queries=queries,
        query_tenants=tuple(f"t{tenant}" for tenant in query_tenants),
        query_parts=parts(len(queries)),
        query_words=words(len(queries)),
    )


def wordnet(points: int, queries: int, cache: Path, on_progress: Callable[[str], None]) -> Dataset:
    """Return WordNet's glosses as embedded by MiniLM; they are embedded once, then read from the cache directory."""
    sample = glosses(points + queries)
    described = json.dumps([RECIPE, points, queries, [gloss.text for gloss in sample]])
    digest = hashlib.sha256(described.encode()).hexdigest()[:12]
    cached = _cached(cache / f"wordnet-{digest}.npz", "vectors")
    if cached is None:
        cached = (_embed(sample, on_progress),)
        _keep(cache / f"wordnet-{digest}.npz", vectors=cached[0])
    vectors = cached[0]
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
        query_words=tuple(asked[row].word for row in kept),
    )


def _embed(sample: list[Gloss], on_progress: Callable[[str], None]) -> npt.NDArray[np.float32]:
    # The runtime of the model is large, and is not in Plinth's image.
    from plinth.gateway.providers.minilm_model import MiniLM

    told = -1

    def tell(share: float) -> None:
        nonlocal told
        if int(share * 4) > told:
            told = int(share * 4)
            on_progress(f"Embedding {len(sample)} WordNet glosses with MiniLM, once: {share:4.0%}")

    return MiniLM().embed([f"{gloss.word}: {gloss.text.split(';')[0]}" for gloss in sample], tell)


def _keep(path: Path, **arrays: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, allow_pickle=False, **arrays)
    partial.replace(path)


def _cached(path: Path, *names: str) -> tuple[npt.NDArray[Any], ...] | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return tuple(archive[name] for name in names)
    except (FileNotFoundError, ValueError, zipfile.BadZipFile, KeyError):
        return None


def payload(dataset: Dataset, row: int) -> dict[str, Any]:
    """Return the payload of a point."""
    return {"org_id": dataset.tenants[row], "model": dataset.parts[row], "word": dataset.words[row]}
