"""One run of the load gate: prepare, measure recall, send rounds of load, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol as Interface

import numpy as np

from plinth.errors import UserError
from plinth.load import aggregation, locust_runner
from plinth.load.aggregation import Result, Times
from plinth.load.collection_setup import drop_scratch, gate_spec, measure_recall, prepare, unready
from plinth.load.dataset import Dataset, dataset
from plinth.load.dataset_points import BY_ROW, Stored, gateway_spec, marked_for_gateway, stored_by_gateway, unquantized
from plinth.load.locust_runner import Aim, Protocol, Schedule
from plinth.load.own_collection import NEW, own_collection, renew
from plinth.load.percentiles import Latencies
from plinth.load.report import Report, Step
from plinth.load.server_metrics import Observer, ServerSide
from plinth.load.slo import CREATE, Profile, Slo
from plinth.load.verdict import Measured, Recall, Verdict, judge
from plinth.qdrant.client import Qdrant, QdrantError, collection_path
from plinth.qdrant.spec import CollectionSpec
from plinth.system import hardware


@dataclass(frozen=True)
class Server:
    """The target of the load. ``grpc`` is `host:port`; ``ca_cert`` is the CA certificate (PEM)."""

    url: str
    api_key: str | None
    grpc: str | None = None
    ca_cert: str | None = None

    def aim(self, protocol: Protocol, spec: CollectionSpec) -> Aim:
        """Return the load target for a protocol."""
        if protocol == "grpc" and self.grpc is None:
            raise UserError(f"{self.url} has no gRPC address; leave --protocol out to measure over REST.")
        address = self.grpc if protocol == "grpc" and self.grpc else self.url
        tls = self.url.startswith("https://")
        return Aim(protocol, address, self.api_key, spec.name, spec.search.params(), tls, self.ca_cert)


class Way(Interface):
    """Another path to a server than its own addresses: the gateway in front of it."""

    @property
    def url(self) -> str:
        """Return its address, for the report."""

    def aim(self, protocol: Protocol, spec: CollectionSpec) -> Aim:
        """Return the load target for a protocol."""

    def made(self, spec: CollectionSpec, count: int) -> list[float]:
        """Create collections one after the other and drop each; return the milliseconds that each creation took."""


class Send(Interface):
    """A function that sends a schedule and returns the results of each worker."""

    def __call__(self, schedule: Schedule) -> list[Result]:
        """Send the schedule."""


@dataclass(frozen=True)
class Rounds:
    """The rounds that count, and the verdict after each round."""

    kept: Sequence[Sequence[Result]]
    measured: Measured
    verdicts: Sequence[Verdict]


class Prepared:
    """A server with the data on it, to be put under load; its index may be unready."""

    def __init__(
        self,
        client: Qdrant,
        server: Server,
        spec: CollectionSpec,
        data: Dataset,
        protocol: Protocol,
        locustfile: Path,
        on_progress: Callable[[str], None],
        handed_out: Path | None = None,
        way: Way | None = None,
        stored: Stored = BY_ROW,
    ) -> None:
        """Create the collection of ``spec``, fill it and wait for its index. The load goes through ``way`` if given."""
        self.client = client
        self.data = data
        self.engine = client.banner()
        if protocol == "grpc" and way is None and "embedded" in self.engine:
            raise UserError(f"{self.engine} has no gRPC; leave --protocol out to measure over REST.")
        self._aim = way.aim(protocol, spec) if way else server.aim(protocol, spec)
        self._scratch = stored.scratch
        self._locustfile, self._handed_out = locustfile, handed_out
        self._say = on_progress
        self.spec = prepare(client, spec, data, on_progress, stored)
        self.not_ready = list(unready(client, self.spec))
        self.recall = measure_recall(client, self.spec, data, stored)

    def send(self, schedule: Schedule) -> list[Result]:
        """Put the server under load, delete what was written, and return the results of each worker."""
        self._say(
            f"Load: {schedule.rate_per_s:.0f} requests/s for {schedule.duration_s:.0f} s "
            f"after {schedule.warmup_s:.0f} s of warm-up"
        )
        renew(self.client, self.spec.name, schedule)
        if self._handed_out:
            self._say(f"Waiting for {schedule.processes} worker(s) with the job in {self._handed_out}")
        found = locust_runner.send(self._aim, schedule, self.data, self._locustfile, self._handed_out)
        try:
            drop_scratch(self.client, self.spec, self._scratch)
            # What the run wrote may still be indexed; the data set must be.
            left = [words for words in unready(self.client, self.spec) if "still being optimized" not in words]
        except QdrantError as error:
            # The results of a server that is gone are judged all the same.
            left = [str(error)]
        self.not_ready.extend(f"after the run: {words}" for words in left)
        return found


def run(
    server: Server,
    profile_name: str,
    slo: Slo,
    shipped: CollectionSpec,
    *,
    protocol: Protocol = "rest",
    cache: Path | None,
    locustfile: Path,
    on_progress: Callable[[str], None],
    handed_out: Path | None = None,
    keep: bool = False,
    way: Way | None = None,
) -> Report:
    """Measure and judge, with the tuning of the collection ``shipped``.

    ``handed_out`` is as in :func:`plinth.load.locust_runner.send`. The collection is dropped afterwards, unless
    ``keep``. ``way`` is the gateway, for a profile that goes through it.
    """
    profile = slo.profile(profile_name)
    data = dataset(profile.data, cache, on_progress)
    with (
        Qdrant(server.url, server.api_key, ca_cert=server.ca_cert) as client,
        prepared(client, server, shipped, data, protocol, locustfile, on_progress, handed_out, keep, way) as ready,
    ):
        if way is None:
            created = create(client, ready.spec, profile.creations)
        else:
            created = made(way.made(ready.spec, profile.creations))

        def measure(kept: Sequence[Sequence[Result]]) -> Measured:
            return measured(kept, created, profile, data, ready.recall, ready.not_ready)

        with Observer(client, ready.spec.name) as observer:
            steps = climb(profile, slo, ready.send, measure, on_progress)
    engine, url = (f"the gateway before {ready.engine}", way.url) if way else (ready.engine, server.url)
    return report(profile_name, slo, steps, observer.seen, created, data, engine, url, protocol)


@contextmanager
def prepared(
    client: Qdrant,
    server: Server,
    shipped: CollectionSpec,
    data: Dataset,
    protocol: Protocol,
    locustfile: Path,
    on_progress: Callable[[str], None],
    handed_out: Path | None = None,
    keep: bool = False,
    way: Way | None = None,
    as_gateway: bool = False,
) -> Iterator[Prepared]:
    """Yield a server with a collection of the gate, and drop the collection after the block.

    Through the gateway, or ``as_gateway`` for a comparison with it, the collection is like the gateway's own.
    """
    spec = gate_spec(shipped, data)
    searched = gateway_spec(spec) if way else unquantized(spec) if as_gateway else spec
    with own_collection(client, searched, keep, on_progress) as own:
        stored = stored_by_gateway(own.name) if way else BY_ROW
        marked = marked_for_gateway(own) if way else own
        yield Prepared(client, server, marked, data, protocol, locustfile, on_progress, handed_out, way, stored)


def create(client: Qdrant, spec: CollectionSpec, count: int) -> Times | None:
    """Create collections one by one and drop each; return how long it took, or None when none are requested."""
    took = []
    for number in range(count):
        path = collection_path(f"{spec.name}{NEW}{number}")
        try:
            began = time.perf_counter()
            client.call("PUT", path, spec.create_body())
            took.append((time.perf_counter() - began) * 1000)
        finally:
            client.call("DELETE", path)
    return made(took)


def made(took: Sequence[float]) -> Times | None:
    """Return the times of collections that took so many milliseconds to create, or None for none."""
    if not took:
        return None
    values, counts = np.unique(np.round(took, 3), return_counts=True)
    found = Latencies(values, counts.astype(np.int64).reshape(1, -1), (0,))
    return Times(found, found, {}, None)


def measured(
    kept: Sequence[Sequence[Result]],
    created: Times | None,
    profile: Profile,
    data: Dataset,
    before: Recall,
    not_ready: Sequence[str],
) -> Measured:
    """Return the figures of a verdict, over the rounds that count."""
    seconds, shares = aggregation.elapsed(kept), data.shares()
    operations = {
        name: aggregation.operation(found, seconds, profile.confidence)
        for name, found in aggregation.times(kept).items()
    }
    if created:
        # One at a time: their number per second follows from the time they took.
        spent = created.response.mean() * created.response.total / 1000
        operations[CREATE] = aggregation.operation(created, spent, profile.confidence)
    during = aggregation.recall(kept, shares)
    recall = {"before the run": before, **({"during the run": during} if during else {})}
    return Measured(operations, aggregation.generator(kept), recall, tuple(not_ready))


def climb(
    profile: Profile,
    slo: Slo,
    send: Send,
    measure: Callable[[Sequence[Sequence[Result]]], Measured],
    on_progress: Callable[[str], None],
) -> list[Step]:
    """Run one step at the profile's rate, or with `steps` each rate in turn until one does not pass."""
    found: list[Step] = []
    for rate in profile.steps or (profile.rate_per_s,):
        schedule = Schedule(
            rate, profile.warmup_s, profile.duration_s, profile.mix, 100 * len(found), profile.processes
        )
        decide = partial(judge, slo=slo, profile=profile.model_copy(update={"rate_per_s": rate}))
        result = judged_rounds(schedule, profile.rounds, send, measure, decide, on_progress)
        found.append(Step(rate, result.measured, result.verdicts, result.kept, schedule.block_s))
        if result.verdicts[-1].word != "pass":
            break
    return found


def judged_rounds(
    schedule: Schedule,
    limit: int,
    send: Send,
    measure: Callable[[Sequence[Sequence[Result]]], Measured],
    decide: Callable[[Measured], Verdict],
    on_progress: Callable[[str], None],
) -> Rounds:
    """Run rounds until another one would add no information.

    A round that missed a percentile or left it open is kept for the next verdict; one that says nothing about the
    server is discarded.
    """
    kept: list[list[Result]] = []
    verdicts: list[Verdict] = []
    while True:
        kept.append(send(replace(schedule, number=schedule.number + len(verdicts))))
        found = measure(kept)
        verdicts.append(decide(found))
        if verdicts[-1].again is None or len(verdicts) == limit:
            return Rounds(kept, found, verdicts)
        on_progress(f"Another round: {verdicts[-1].reasons[0]}")
        if verdicts[-1].again == "instead":
            kept.pop()


def report(
    profile_name: str,
    slo: Slo,
    steps: Sequence[Step],
    server_side: ServerSide,
    created: Times | None,
    data: Dataset,
    engine: str,
    url: str,
    protocol: Protocol,
) -> Report:
    """Return the report of a run; its verdict is that of the last step that had to pass."""
    return Report(
        profile=profile_name,
        judged=slo.profile(profile_name),
        slo=slo,
        steps=tuple(steps),
        server=server_side,
        created=created,
        engine=engine,
        url=url,
        protocol=protocol,
        data=data.described,
        machine=hardware.described(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
