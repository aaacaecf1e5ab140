"""The page of metrics of a gateway: of several processes the sum, whichever of them is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from plinth.gateway.processes import ServerProcess

# A process that takes longer is not well, and a page without it would look as if its counters had begun anew.
ANSWER_S = 2.0
# Moments and limits, of which a sum says nothing.
_EARLIEST = ("_created", "_start_time_seconds")
_HIGHEST = ("_max_fds",)
MetricsPage = Callable[[], Awaitable[bytes]]


def own_page(registry: CollectorRegistry) -> MetricsPage:
    """The page of the only process."""

    async def page() -> bytes:
        return generate_latest(registry)

    return page


async def common_page(registry: CollectorRegistry, process: ServerProcess, processes: int) -> MetricsPage:
    """The page of several processes, each of which tells the others its own by a socket of theirs.

    Raises OSError and TimeoutError where one of them does not answer.
    """

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(generate_latest(registry))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(tell, _socket(process, process.number))

    async def page() -> bytes:
        # This also holds the server, which would be closed once nobody does.
        if not server.is_serving():
            raise ConnectionError("this process ends")
        async with asyncio.timeout(ANSWER_S):
            pages = await asyncio.gather(*(_ask(_socket(process, number)) for number in range(processes)))
        return merged(pages)

    return page


def merged(pages: Sequence[str]) -> bytes:
    """One page of several: what each counted is added up."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for page in pages:
        for family in text_string_to_metric_families(page):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known = values.setdefault(family.name, {})
            for sample in family.samples:
                key = sample.name, tuple(sample.labels.items())
                known[key] = _combined(sample.name, known[key], sample.value) if key in known else sample.value
    for name, family in families.items():
        for (sample_name, labels), value in values[name].items():
            family.add_sample(sample_name, dict(labels), value)
    registry = CollectorRegistry()
    registry.register(_Merged(families.values()))
    return generate_latest(registry)


def _combined(name: str, one: float, other: float) -> float:
    if name.endswith(_EARLIEST):
        return min(one, other)
    return max(one, other) if name.endswith(_HIGHEST) else one + other


def _socket(process: ServerProcess, number: int) -> Path:
    return process.directory / f"{number}.sock"


async def _ask(path: Path) -> str:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        return (await reader.read()).decode()
    finally:
        writer.close()


class _Merged(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
