"""all-MiniLM-L6-v2 in this process. Its arithmetic runs in a thread of its own, and the event loop goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from plinth.gateway.errors import timed_out
from plinth.gateway.providers.minilm_model import DIMENSIONS, MiniLM

MODEL, VERSION = "all-MiniLM-L6-v2", "v1"


class Abandoned(Exception):
    """Nobody waits for these vectors any more."""


class MiniLMEmbedder:
    """The bundled weights, which the first text loads (90 MB)."""

    model = MODEL
    version = VERSION
    dimension = DIMENSIONS

    def __init__(self) -> None:
        self._weights: MiniLM | None = None
        # One thread: numpy gives each product of matrices all processors.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="minilm")

    async def embed(self, texts: Sequence[str], within_s: float) -> list[list[float]]:
        """A unit vector for each text; of a long one the first 256 tokens count."""
        if not texts:
            return []
        abandoned = threading.Event()
        try:
            async with asyncio.timeout(within_s):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._executor, self._embed, list(texts), abandoned)
        except TimeoutError:
            raise timed_out() from None
        finally:
            abandoned.set()

    async def close(self) -> None:
        """Forget what waits for the thread, and wait for its end."""
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)

    def _embed(self, texts: list[str], abandoned: threading.Event) -> list[list[float]]:
        def go_on(_share: float) -> None:
            # Who comes next waits for this thread, so it does not end what nobody waits for.
            if abandoned.is_set():
                raise Abandoned

        go_on(0)
        if self._weights is None:
            self._weights = MiniLM()
        vectors: list[list[float]] = self._weights.embed(texts, on_progress=go_on).tolist()
        return vectors
