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

JOB: dict[str, Any] = json.loads(Path(os.environ["PLINTH_LOAD_JOB"]).read_text())
with np.load(JOB["data"], allow_pickle=False) as archive:
    # An archive reads an array from the file each time that it is asked for one.
    DATA = {name: archive[name] for name in archive.files}
SCRATCH = "load.scratch"
FIRST_SCRATCH_ID = 1_000_000_000
BATCH = 100
MICROSECONDS_MAX = 60_000_000


class Record:
    """One operation's latencies in microseconds: from the planned moment, and from the moment of sending."""

    def __init__(self) -> None:
        self.response = HdrHistogram(1, MICROSECONDS_MAX, 3)
        self.service = HdrHistogram(1, MICROSECONDS_MAX, 3)
        self.errors = 0
        self.first_error: str | None = None

    def take(self, planned: float, sent: float, error: str | None) -> None:
        """One finished request; a failed one is an error and no latency."""
        now = time.perf_counter()
        if error:
            self.errors += 1
            self.first_error = self.first_error or error
            return
        self.response.record_value(min(MICROSECONDS_MAX, max(1, round((now - planned) * 1e6))))
        self.service.record_value(min(MICROSECONDS_MAX, max(1, round((now - sent) * 1e6))))

    def to_json(self) -> dict[str, Any]:
        """The histograms, encoded without loss."""
        return {
            "response": self.response.encode().decode(),
            "service": self.service.encode().decode(),
            "errors": self.errors,
            "first_error": self.first_error,
        }


class TenantUser(FastHttpUser):
    """Every operation of the mix, each within one tenant."""

    host = JOB["url"]
    concurrency = 256
    connection_timeout = network_timeout = 30.0

    def on_start(self) -> None:
        """Encode every body beforehand: a list of 768 floats costs a millisecond of JSON."""
        # Without `identity` Qdrant sends answers of 4 KB and more compressed in chunks, and each waits 40 ms for the
        # client's delayed acknowledgement (docs/load.md).
        self.headers = {
            "api-key": JOB["api_key"] or "",
            "content-type": "application/json",
            "accept-encoding": "identity",
        }
        self.points = f"/collections/{JOB['collection']}/points"
        self.searches = [self._search(row) for row in range(len(DATA["queries"]))]
        self.filtered = [self._search(row, part=str(DATA["query_parts"][row])) for row in range(len(DATA["queries"]))]
        self.ids = DATA["ids"].tolist()
        self.count = len(self.ids)
        self.scratch = 0
        self.deletable: list[int] = []

    @task
    def run_schedule(self) -> None:
        """Warm up, then send the measured schedule and write the result."""
        self._send(arrivals(JOB["rate_per_s"], JOB["warmup_s"], JOB["mix"], seed=1), defaultdict(Record))
        process = psutil.Process()
        used, began = sum(process.cpu_times()[:2]), time.perf_counter()
        records: dict[str, Record] = defaultdict(Record)
        plan = arrivals(JOB["rate_per_s"], JOB["duration_s"], JOB["mix"], seed=2)
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
            planned = start + moment
            wait = planned - time.perf_counter()
            if wait > 0:
                gevent.sleep(wait)
            if pool.free_count() == 0:
                records[name].take(
                    planned, planned, f"{JOB['in_flight_max']} requests were in flight; this one was shed"
                )
                continue
            lags.append(max(0.0, time.perf_counter() - planned))
            pool.spawn(self._one, name, number, planned, records)
        pool.join(timeout=30)
        return lags

    def _one(self, name: str, number: int, planned: float, records: dict[str, Record]) -> None:
        sent = time.perf_counter()
        try:
            error = getattr(self, f"_do_{name}")(number)
        except Exception as failure:  # a greenlet's exception would be lost; here it is a failed request
            error = f"{type(failure).__name__}: {failure}"
        records[name].take(planned, sent, error)

    def _do_search(self, number: int) -> str | None:
        row = number % len(self.searches)
        return self._hits("POST", self.searches[row], str(DATA["query_tenants"][row]), "search")

    def _do_filtered_search(self, number: int) -> str | None:
        row = number % len(self.filtered)
        return self._hits("POST", self.filtered[row], str(DATA["query_tenants"][row]), "filtered_search")

    def _do_get(self, number: int) -> str | None:
        return self._request("GET", f"{self.points}/{self.ids[number * 7919 % self.count]}", None, "get")[0]

    def _do_scroll(self, number: int) -> str | None:
        tenant = str(DATA["query_tenants"][number % len(DATA["query_tenants"])])
        body = orjson.dumps({"filter": _only(tenant), "limit": 20, "with_payload": True})
        return self._request("POST", f"{self.points}/scroll", body, "scroll")[0]

    def _do_upsert(self, number: int) -> str | None:
        return self._upsert(1, number, "upsert")

    def _do_upsert_batch_100(self, number: int) -> str | None:
        return self._upsert(BATCH, number, "upsert_batch_100")

    def _do_delete(self, number: int) -> str | None:
        identifier = self.deletable.pop() if self.deletable else FIRST_SCRATCH_ID - 1 - number
        body = orjson.dumps({"points": [identifier]})
        return self._request("POST", f"{self.points}/delete?wait=true", body, "delete")[0]

    def _upsert(self, count: int, number: int, name: str) -> str | None:
        first = FIRST_SCRATCH_ID + self.scratch
        self.scratch += count
        points = [
            {
                "id": first + offset,
                "vector": DATA["queries"][(number + offset) % len(DATA["queries"])],
                "payload": {"org_id": SCRATCH, "model": "scratch"},
            }
            for offset in range(count)
        ]
        body = orjson.dumps({"points": points}, option=orjson.OPT_SERIALIZE_NUMPY)
        error = self._request("PUT", f"{self.points}?wait=true", body, name)[0]
        if error is None:
            self.deletable.extend(point["id"] for point in points)
        return error

    def _hits(self, method: str, body: bytes, tenant: str, name: str) -> str | None:
        error, content = self._request(method, f"{self.points}/query", body, name)
        if error:
            return error
        found = orjson.loads(content)["result"]["points"]
        strangers = {point["payload"]["org_id"] for point in found} - {tenant}
        if strangers:
            return f"a search within {tenant} returned a point of {sorted(strangers)[0]}"
        return None if found or name == "filtered_search" else f"a search within {tenant} found nothing"

    def _request(self, method: str, path: str, body: bytes | None, name: str) -> tuple[str | None, bytes]:
        with self.client.request(
            method,
            path,
            data=body,  # type: ignore[arg-type]
            headers=self.headers,
            name=name,
            catch_response=True,
        ) as response:
            if response.status_code == 200:
                response.success()
                return None, response.content
            words = (response.text or str(response.error or "no answer"))[:200]
            response.failure(words)
            return f"{response.status_code} {words}", b""

    def _search(self, row: int, part: str | None = None) -> bytes:
        body = {
            "query": DATA["queries"][row],
            "filter": _only(str(DATA["query_tenants"][row]), part),
            "limit": 10,
            "with_payload": ["org_id"],
            "params": JOB["params"],
        }
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def _exit_code(environment: Environment, **_: Any) -> None:
    """The verdict is not Locust's: failed requests are counted in the result."""
    environment.process_exit_code = 0


def _only(tenant: str, part: str | None = None) -> dict[str, Any]:
    must = [{"key": "org_id", "match": {"value": tenant}}]
    return {"must": [*must, {"key": "model", "match": {"value": part}}] if part else must}
