"""The Locust side of the load gate: send a schedule, and record the results.

`plinth load` runs it with a job file in PLINTH_LOAD_JOB (mode 0600, since it holds the server's key). One user per
worker sends the worker's part of the schedule; each request runs in its own greenlet and is sent on time, whatever the
others wait for. With several workers the master collects their results.
"""

from __future__ import annotations

import json
import os
import platform
import ssl
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import gevent
import grpc
import grpc.experimental.gevent
import numpy as np
import psutil
from gevent.pool import Pool
from geventhttpclient.response import HTTPConnectionClosed
from hdrh.histogram import HdrHistogram
from locust import FastHttpUser, User, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from qdrant_client.grpc import PointsStub

from plinth.load.arrivals import arrivals
from plinth.load.protocols.gateway_grpc import GatewayGrpc
from plinth.load.protocols.gateway_rest import GatewayRest
from plinth.load.protocols.grpc import Grpc
from plinth.load.protocols.rest import Rest
from plinth.load.workload import QUERIES, Ask, Queries, Workload
from plinth.system.http_client import grpc_options
from plinth.system.tls import trusting
from plinth.vectors.v1.vectors_pb2_grpc import VectorServiceStub

JOB_FILE = Path(os.environ["PLINTH_LOAD_JOB"])
JOB: dict[str, Any] = json.loads(JOB_FILE.read_text())
# Next to the job file, whose path differs between the machines of workers.
with np.load(JOB_FILE.with_name("data.npz"), allow_pickle=False) as archive:
    # An archive reads an array from the file at each access.
    DATA = {name: archive[name] for name in archive.files}
MICROSECONDS_MAX = 60_000_000
TIMEOUT_S = 30.0
# Longer than the client's own timeout, so that the slowest answers are counted and not cut off.
LAST_ANSWERS_S = 35.0
# A server closes an idle connection (Qdrant after 5 s), sometimes just as a request is sent on it. Clients send it
# again, which is safe for every request here; a server that drops more than this share is at fault.
RESENT_SHARE_MAX = 0.001
# A loop that is this late was not delayed by the server: it waits for no answer.
STOOD_STILL_S = 0.1
RESULT = "plinth_result"
if JOB["protocol"] == "grpc":
    grpc.experimental.gevent.init_gevent()


def is_asked(through: str, protocol: str) -> bool:
    """Whether the load goes there, and by this protocol."""
    return bool(JOB["through"] == through and JOB["protocol"] == protocol)


class Refused(Exception):
    """An error response of a server, or no response at all, with the message."""


class Record:
    """The latencies of one operation in microseconds, by block of time: from the planned moment and from sending."""

    def __init__(self) -> None:
        self.response: dict[int, HdrHistogram] = defaultdict(lambda: HdrHistogram(1, MICROSECONDS_MAX, 3))
        self.service: dict[int, HdrHistogram] = defaultdict(lambda: HdrHistogram(1, MICROSECONDS_MAX, 3))
        self.errors: dict[int, int] = defaultdict(int)
        self.first_error: str | None = None

    def answered(self, block: int, response_s: float, service_s: float) -> None:
        """Record a correct answer."""
        self.response[block].record_value(min(MICROSECONDS_MAX, max(1, round(response_s * 1e6))))
        self.service[block].record_value(min(MICROSECONDS_MAX, max(1, round(service_s * 1e6))))

    def failed(self, block: int, words: str) -> None:
        """Record an error without a latency: an error that comes fast would lower the percentiles."""
        self.errors[block] += 1
        self.first_error = self.first_error or words

    def to_json(self) -> dict[str, Any]:
        """Return the histograms, encoded without loss."""
        return {
            "response": {block: histogram.encode().decode() for block, histogram in self.response.items()},
            "service": {block: histogram.encode().decode() for block, histogram in self.service.items()},
            "errors": self.errors,
            "first_error": self.first_error,
        }


class Run:
    """The recorded results of one pass over a schedule."""

    def __init__(self) -> None:
        self.operations: dict[str, Record] = defaultdict(Record)
        self.recall: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self.lags: list[float] = []
        self.in_flight: list[int] = []


class Scheduled(User):
    """A user that sends the schedule; a subclass implements the protocol."""

    abstract = True
    wire_class: Any

    def on_start(self) -> None:
        """Encode the queries beforehand."""
        runner = self.environment.runner
        self.worker = runner.worker_index if isinstance(runner, WorkerRunner) else 0
        truth = [frozenset(row[row >= 0].tolist()) for row in DATA["truth"]]
        tenants, parts, words, matched = (DATA[name].tolist() for name in ("tenants", "parts", "words", "matched"))
        queries = Queries(tenants, parts, words, truth, matched)
        self.workload = Workload(queries, JOB["points"], self.worker, JOB["scratch"])
        self.wire: Any = self.wire_class(JOB["collection"], JOB["params"], DATA["queries"])
        for name in QUERIES & JOB["mix"].keys():
            self.wire.encode_ahead(self.workload.ask(name, row) for row in range(len(truth)))

    @task
    def run_schedule(self) -> None:
        """Warm up, then send the measured schedule and hand over the result."""
        share = JOB["rate_per_s"] / JOB["processes"]
        seed = 2 * (JOB["round"] * JOB["processes"] + self.worker)
        self._send(arrivals(share, JOB["warmup_s"], JOB["mix"], seed), Run())
        plan, run = arrivals(share, JOB["duration_s"], JOB["mix"], seed + 1), Run()
        process = psutil.Process()
        used, began = sum(process.cpu_times()[:2]), time.perf_counter()
        self._send(plan, run)
        elapsed = time.perf_counter() - began
        _hand_over(
            self.environment,
            {
                "planned": len(plan),
                "sent": len(run.lags),
                "elapsed_s": elapsed,
                "lag_p95_ms": float(np.percentile(run.lags, 95)) * 1e3 if run.lags else 0.0,
                "host": platform.node(),
                "cores": os.cpu_count(),
                "cpu_s": sum(process.cpu_times()[:2]) - used,
                "in_flight_mean": float(np.mean(run.in_flight)) if run.in_flight else 0.0,
                "recall": run.recall,
                "operations": {name: record.to_json() for name, record in run.operations.items()},
            },
        )

    def _send(self, plan: list[tuple[float, str]], run: Run) -> None:
        """Start each request at its planned moment.

        With the most requests in flight, further ones count as server errors. If this process stalled, they are dropped
        instead for as long as the stall lasted, so that the server has time for the burst; many dropped requests void
        the run.
        """
        pool, start, excused = Pool(JOB["in_flight_max"]), time.perf_counter() + 0.05, 0.0
        for number, (moment, name) in enumerate(plan):
            ask, planned = self.workload.ask(name, number), start + moment
            # If behind schedule, yield once, so that answers can free slots.
            gevent.sleep(max(0.0, planned - time.perf_counter()))
            now, block = time.perf_counter(), int(moment / JOB["block_s"])
            late = now - planned
            if late > STOOD_STILL_S:
                excused = max(excused, now + late)
            run.in_flight.append(len(pool))
            if pool.free_count() == 0:
                if now > excused:
                    run.operations[name].failed(
                        block, f"not sent: {JOB['in_flight_max']} requests waited for an answer already"
                    )
                continue
            run.lags.append(max(0.0, late))
            pool.spawn(self._one, ask, block, planned, run)
        pool.join(timeout=LAST_ANSWERS_S)
        pool.kill()

    def _one(self, ask: Ask, block: int, planned: float, run: Run) -> None:
        record = run.operations[ask.name]
        request = self.wire.request(ask)
        sent = time.perf_counter()
        try:
            raw = self.exchange(ask.name, request)
            finished = time.perf_counter()
            outcome = self.workload.outcome(ask, self.wire.answer(ask, raw))
            if outcome.error:
                record.failed(block, outcome.error)
                return
            record.answered(block, finished - planned, finished - sent)
            if outcome.nearest:
                tally = run.recall[ask.tenant]
                tally[0] += outcome.found
                tally[1] += outcome.nearest
        except gevent.GreenletExit:
            record.failed(block, f"no answer within {LAST_ANSWERS_S:.0f} s")
        except Refused as refused:
            record.failed(block, str(refused))
        except Exception as failure:  # a greenlet's exception would be lost; here it is a failed request
            record.failed(block, f"{type(failure).__name__}: {failure}")

    def exchange(self, name: str, request: Any) -> Any:
        """Send a request, wait, and return the undecoded answer. Raises :class:`Refused`."""
        raise NotImplementedError


class RestUser(Scheduled, FastHttpUser):
    """A user of the REST API."""

    abstract = not is_asked("qdrant", "rest")
    wire_class: Any = Rest
    host = JOB["url"]
    insecure = False
    concurrency = 256
    connection_timeout = network_timeout = TIMEOUT_S
    # Without `identity` Qdrant sends answers of 4 KB and more compressed in chunks, and each waits 40 ms for the
    # client's delayed acknowledgement (docs/load.md).
    headers = {
        "api-key": JOB["api_key"] or "",
        "content-type": "application/json",
        "accept-encoding": "identity",
    }

    @staticmethod
    def ssl_context_factory() -> ssl.SSLContext:
        """Return a context that checks the certificate, against the job's CA certificate where it has one."""
        return trusting(JOB["ca_cert"])

    def on_start(self) -> None:
        """Encode the queries, and start the counts of sent and resent requests at 0."""
        super().on_start()
        self.sent = self.resent = 0

    def exchange(self, name: str, request: Any) -> bytes:
        """Return the body of a successful response."""
        self.sent += 1
        status, content = self._exchange_once(name, request)
        if content is None and self.resent <= self.sent * RESENT_SHARE_MAX:
            self.resent += 1
            status, content = self._exchange_once(name, request)
        if status not in (200, 204):
            raise Refused(f"{status} {(content or b'the connection was closed')[:200].decode(errors='replace')}")
        return content or b""

    def _exchange_once(self, name: str, request: Any) -> tuple[int, bytes | None]:
        """Return the status and the body, or 0 and None where the connection was closed without a response."""
        with self.client.request(
            request.method,
            request.path,
            data=request.body,
            headers=self.headers,
            name=name,
            catch_response=True,
        ) as response:
            # Locust's own counts are not used, and its failures would be printed.
            response.success()
            # Only a request without an answer has an error.
            failure = getattr(response, "error", None)
            if isinstance(failure, HTTPConnectionClosed):
                return 0, None
            return response.status_code, response.content or str(failure or "").encode()


class GrpcUser(Scheduled):
    """A user of the gRPC API."""

    abstract = not is_asked("qdrant", "grpc")
    wire_class: Any = Grpc
    stub_class: Any = PointsStub
    metadata: tuple[tuple[str, str], ...] = (("api-key", JOB["api_key"]),) if JOB["api_key"] else ()

    def on_start(self) -> None:
        """Open the channel."""
        super().on_start()
        self.channel = _channel()
        self.stub = self.stub_class(self.channel)

    def on_stop(self) -> None:
        """Close the channel: an open one would keep Locust from ending."""
        self.channel.close()

    def exchange(self, _name: str, request: Any) -> Any:
        """Return the response message."""
        try:
            return getattr(self.stub, request.method)(request.message, timeout=TIMEOUT_S, metadata=self.metadata)
        except grpc.RpcError as error:
            raise Refused(f"{error.code().name} {error.details()}"[:200]) from None


class GatewayRestUser(RestUser):
    """A user of the gateway's REST API, as the organisation of a token."""

    abstract = not is_asked("gateway", "rest")
    wire_class = GatewayRest
    headers = {"authorization": f"Bearer {JOB['api_key']}", "content-type": "application/json"}


class GatewayGrpcUser(GrpcUser):
    """A user of the gateway's gRPC API, as the organisation of a token."""

    abstract = not is_asked("gateway", "grpc")
    wire_class = GatewayGrpc
    stub_class = VectorServiceStub
    metadata = (("authorization", f"Bearer {JOB['api_key']}"),)


def _channel() -> Any:
    options = grpc_options(JOB["url"])
    if not JOB["tls"]:
        return grpc.insecure_channel(JOB["url"], options)
    signer = JOB["ca_cert"].encode() if JOB["ca_cert"] else None
    return grpc.secure_channel(JOB["url"], grpc.ssl_channel_credentials(signer), options)


def _hand_over(environment: Environment, result: dict[str, Any]) -> None:
    if isinstance(environment.runner, WorkerRunner):
        environment.runner.send_message(RESULT, {"result": json.dumps(result)})
    elif environment.runner:
        _write([result])
        environment.runner.quit()


def _write(results: list[dict[str, Any]]) -> None:
    partial = JOB_FILE.with_name("result.partial")
    partial.write_text(json.dumps(results))
    partial.replace(JOB_FILE.with_name("result.json"))


@events.init.add_listener  # type: ignore[untyped-decorator]
def _gather(environment: Environment, **_: Any) -> None:
    master = environment.runner
    if not isinstance(master, MasterRunner):
        return
    results: list[dict[str, Any]] = []

    def take(msg: Any, **_: Any) -> None:
        results.append(json.loads(msg.data["result"]))
        if len(results) == JOB["processes"]:
            _write(results)
            master.quit()

    master.register_message(RESULT, take)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def _exit_code(environment: Environment, **_: Any) -> None:
    """Set exit code 0: the verdict is not Locust's, and failed requests are counted in the result."""
    environment.process_exit_code = 0
