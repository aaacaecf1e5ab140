"""`/readyz` (S0-03): whether each store answers, in the words of the first document."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

SERVICE = "api"
log = logging.getLogger("plinth.gateway.readiness")
Probe = Callable[[], Awaitable[object]]


class Readiness:
    """The state of the dependencies, asked for no more often than every ``cache_sec`` seconds.

    A probe is None for a dependency that is not asked.
    """

    def __init__(
        self, probes: Mapping[str, Probe | None], *, timeout_ms: int = 300, retries: int = 2, cache_sec: float = 10.0
    ) -> None:
        self._probes = probes
        self._timeout_s = timeout_ms / 1000
        self._retries = retries
        self._cache_sec = cache_sec
        self._report: tuple[float, dict[str, Any]] | None = None
        self._asking = asyncio.Lock()

    async def report(self) -> dict[str, Any]:
        """The document of `/readyz`."""
        async with self._asking:
            now = time.monotonic()
            if self._report is None or now - self._report[0] >= self._cache_sec:
                self._report = (now, await self._ask())
            return self._report[1]

    async def _ask(self) -> dict[str, Any]:
        states = await asyncio.gather(*(self._dependency(name, probe) for name, probe in self._probes.items()))
        deps = dict(zip(self._probes, states, strict=True))
        away = [name for name, state in deps.items() if state["ok"] is False]
        summary = f"not ready: {', '.join(away)}" if away else "ok"
        return {"service": SERVICE, "ready": not away, "summary": summary, "deps": deps}

    async def _dependency(self, name: str, probe: Probe | None) -> dict[str, Any]:
        if probe is None:
            return {"enabled": False, "skipped": True, "ok": None}
        began = time.monotonic()
        for _ in range(self._retries + 1):
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await probe()
            except Exception as error:
                log.info("%s does not answer: %r", name, error)
                continue
            return {"enabled": True, "ok": True, "skipped": False, "latency_ms": _ms(began)}
        return {"enabled": True, "ok": False, "skipped": False, "latency_ms": _ms(began)}


def _ms(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
