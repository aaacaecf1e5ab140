"""Data sets as self-contained files.

Plinth's image has those of WordNet, without WordNet itself and the model that embedded it: 13 MB instead of 150.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import plinth
from plinth.errors import UserError
from plinth.load.dataset import Dataset
from plinth.load.image_datasets import DIRECTORY, file_name
from plinth.load.slo import Data

# A directory of the image; it exists nowhere else.
PACKED = Path(plinth.__file__).parent.parent / DIRECTORY
_MATRICES = ("vectors", "queries")
_WORDS = ("tenants", "parts", "words", "query_tenants", "query_parts", "query_words")


def packed(dataset: Dataset) -> bytes:
    """Return a data set as a NumPy archive, with the same bytes for the same data set."""
    arrays = {name: getattr(dataset, name) for name in _MATRICES}
    arrays |= {name: np.array(getattr(dataset, name), dtype=np.str_) for name in _WORDS}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in {"name": np.array(dataset.name), **arrays}.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            # Without a date, which would make each build a different image.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return content.getvalue()


def unpacked(path: Path) -> Dataset:
    """Return the data set of a file."""
    with np.load(path, allow_pickle=False) as archive:
        words = {name: tuple(archive[name].tolist()) for name in _WORDS}
        return Dataset(name=str(archive["name"]), vectors=archive["vectors"], queries=archive["queries"], **words)


def of_image(data: Data, directory: Path = PACKED) -> Dataset:
    """Return a data set of the image. Raises :class:`UserError` where the image has another one or none."""
    path = directory / file_name(data)
    if path.is_file():
        return unpacked(path)
    raise UserError(
        f"Plinth's image has no set of {data.points} WordNet glosses and {data.queries} queries ({_there(directory)}): "
        "it was made of other load profiles, or where WordNet is not. Make it anew with `plinth images build`.",
        exit_code=3,
    )


def _there(directory: Path) -> str:
    names: Iterable[str] = sorted(path.name for path in directory.glob("*.npz"))
    return f"it has {', '.join(names)}" if names else "it has none"
