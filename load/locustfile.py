"""Locust's side of the load gate: it sends a schedule and writes down what came back.

Run by `plinth load`, which hands it a job file (the server's key is in it, so it is 0600) in PLINTH_LOAD_JOB. One user
carries out the schedule; each request runs in a greenlet of its own and is sent on time, whatever the others wait for.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import gevent
import numpy as np
import orjson
import psutil
from gevent.pool import Pool
from hdrh.histogram import HdrHistogram
from locust import FastHttpUser, events, task
from locust.env import Environment

from plinth.load.schedule import arrivals
from plinth.load.workload import Call, Workload

JOB: dict[str, Any] = json.loads(Path(os.environ["PLINTH_LOAD_JOB"]).read_text())
with np.load(JOB["data"], allow_pickle=False) as archive:
    # An archive reads an array from the file each time that it is asked for one.
    DATA = {name: archive[name] for name in archive.files}
MICROSECONDS_MAX = 60_000_000
# Beyond the client's own timeout, so that the slowest answers are counted and not cut off.
LAST_ANSWERS_S = 35.0


class Record:
    """One operation's latencies in microseconds: from the planned moment, and from the moment of sending."""

    def __init__(self) -> None:
        self.response = HdrHistogram(1, MICROSECONDS_MAX, 3)
        self.service = HdrHistogram(1, MICROSECONDS_MAX, 3)
        self.errors = 0
        self.first_error: str | None = None

    def answered(self, planned: float, sent: float, finished: float) -> None:
        """A right answer; the moments are in seconds of one clock."""
        self.response.record_value(min(MICROSECONDS_MAX, max(1, round((finished - planned) * 1e6))))
        self.service.record_value(min(MICROSECONDS_MAX, max(1, round((finished - sent) * 1e6))))

    def failed(self, words: str) -> None:
        """An error is no latency: a quick refusal would lower the percentiles."""
        self.errors += 1
        self.first_error = self.first_error or words

    def to_json(self) -> dict[str, Any]:
        """The histograms, encoded without loss."""
        return {
            "response": self.response.encode().decode(),
            "service": self.service.encode().decode(),
            "errors": self.errors,
            "first_error": self.first_error,
        }


class TenantUser(FastHttpUser):
    """Sends the schedule."""

    host = JOB["url"]
    concurrency = 256
    connection_timeout = network_timeout = 30.0
    # Without `identity` Qdrant sends answers of 4 KB and more compressed in chunks, and each waits 40 ms for the
    # client's delayed acknowledgement (docs/load.md).
    headers = {
        "api-key": JOB["api_key"] or "",
        "content-type": "application/json",
        "accept-encoding": "identity",
    }

    def on_start(self) -> None:
        """Encode the bodies beforehand."""
        self.workload = Workload(
            JOB["collection"],
            JOB["params"],
            JOB["points"],
            DATA["queries"],
            DATA["query_tenants"].tolist(),
            DATA["query_parts"].tolist(),
        )

    @task
    def run_schedule(self) -> None:
        """Warm up, then send the measured schedule and write the result."""
        seed = 2 * JOB["round"]
        self._send(arrivals(JOB["rate_per_s"], JOB["warmup_s"], JOB["mix"], seed), defaultdict(Record))
        process = psutil.Process()
        used, began = sum(process.cpu_times()[:2]), time.perf_counter()
        records: dict[str, Record] = defaultdict(Record)
        plan = arrivals(JOB["rate_per_s"], JOB["duration_s"], JOB["mix"], seed + 1)
        lags = self._send(plan, records)
        elapsed = time.perf_counter() - began
        result = {
            "planned": len(plan),
            "achieved": len(lags),
            "elapsed_s": elapsed,
            "lag_p95_ms": float(np.percentile(lags, 95)) * 1e3 if lags else 0.0,
            "cpu_share": (sum(process.cpu_times()[:2]) - used) / elapsed,
            "operations": {name: record.to_json() for name, record in records.items()},
        }
        Path(JOB["result"]).write_text(json.dumps(result))
        self.environment.runner.quit()

    def _send(self, plan: list[tuple[float, str]], records: dict[str, Record]) -> list[float]:
        """Start each request at its moment; returns how late each was started, in seconds."""
        pool, lags, start = Pool(JOB["in_flight_max"]), [], time.perf_counter() + 0.05
        for number, (moment, name) in enumerate(plan):
            call, planned = self.workload.call(name, number), start + moment
            wait = planned - time.perf_counter()
            if wait > 0:
                gevent.sleep(wait)
            if pool.free_count() == 0:
                records[name].failed(f"not sent: {JOB['in_flight_max']} requests waited for an answer already")
                continue
            lags.append(max(0.0, time.perf_counter() - planned))
            pool.spawn(self._one, name, call, planned, records[name])
        pool.join(timeout=LAST_ANSWERS_S)
        pool.kill()
        return lags

    def _one(self, name: str, call: Call, planned: float, record: Record) -> None:
        sent = time.perf_counter()
        try:
            status, content = self._request(name, call)
            finished = time.perf_counter()
            words = content[:200].decode(errors="replace")
            wrong = call.check(orjson.loads(content)["result"]) if status == 200 else f"{status} {words}"
            if wrong:
                record.failed(wrong)
            else:
                record.answered(planned, sent, finished)
        except gevent.GreenletExit:
            record.failed(f"no answer within {LAST_ANSWERS_S:.0f} s")
        except Exception as failure:  # a greenlet's exception would be lost; here it is a failed request
            record.failed(f"{type(failure).__name__}: {failure}")

    def _request(self, name: str, call: Call) -> tuple[int, bytes]:
        """The status and the body; status 0 with the reason when there was no answer."""
        with self.client.request(
            call.method,
            call.path,
            data=call.body,  # type: ignore[arg-type]
            headers=self.headers,
            name=name,
            catch_response=True,
        ) as response:
            # Locust's own counts are not used, and its failures would be printed.
            response.success()
            return response.status_code, response.content or str(response.error or "no answer").encode()


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def _exit_code(environment: Environment, **_: Any) -> None:
    """The verdict is not Locust's: failed requests are counted in the result."""
    environment.process_exit_code = 0
