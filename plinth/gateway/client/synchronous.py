"""The client that waits."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Self, TypeVar

from tenacity import Retrying

from plinth.gateway.client import calls
from plinth.gateway.client.calls import Call
from plinth.gateway.client.errors import JobFailedError, transport_errors
from plinth.gateway.client.exchange import Exchange, Token, describe, result
from plinth.gateway.client.retries import RetryPolicy, polls
from plinth.gateway.jobs.model import Job, JobStatus
from plinth.system.http_client import client_for

Result = TypeVar("Result")
Given = ParamSpec("Given")


def _method(build: Callable[Given, Call[Result]]) -> Callable[Concatenate[Client, Given], Result]:
    """A method for an operation, with its arguments and its documentation."""

    def method(client: Client, /, *args: Given.args, **named: Given.kwargs) -> Result:
        return client.send(build(*args, **named))

    describe(method, build)
    return method


class Client:
    """The operations of the gateway, as the user that a token names. It may be used by several threads.

    ``timeout_s`` bounds a call with all its tries, ``retries`` says how it is tried again. ``verify`` is what the
    gateway's certificate is checked with: public authorities when absent. Raises :class:`plinth.errors.UserError` for
    an address that is none.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        timeout_s: float = 30.0,
        retries: RetryPolicy | None = None,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self._exchange = Exchange(token)
        self._timeout_s = timeout_s
        self._retries = retries or RetryPolicy()
        self._http = client_for(url, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its connections."""
        self._http.close()

    def send(self, call: Call[Result], *, timeout_s: float | None = None) -> Result:
        """Ask for an operation, with a timeout of its own where one is given."""
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)

        def attempt() -> Result:
            with transport_errors():
                answer = self._http.request(**self._exchange.options(call, deadline))
            return result(call, answer)

        return Retrying(**self._retries.options(repeatable=call.repeatable, deadline=deadline))(attempt)

    def wait(self, job_id: str, *, timeout_s: float = 60.0) -> Job:
        """The job once it is completed; raises :class:`JobFailedError`, or TimeoutError where it goes on."""
        for remaining_s, pause_s in polls(job_id, timeout_s):
            job = self.send(calls.job(job_id), timeout_s=min(remaining_s, self._timeout_s))
            if job.status.ended:
                if job.status is not JobStatus.completed:
                    raise JobFailedError(job)
                return job
            time.sleep(pause_s)
        raise AssertionError("polls ends by an error")

    create_collection = _method(calls.create_collection)
    list_collections = _method(calls.list_collections)
    get_collection = _method(calls.get_collection)
    delete_collection = _method(calls.delete_collection)
    upsert = _method(calls.upsert)
    batch_upsert = _method(calls.batch_upsert)
    search = _method(calls.search)
    text_search = _method(calls.text_search)
    hybrid_search = _method(calls.hybrid_search)
    batch_search = _method(calls.batch_search)
    get = _method(calls.get)
    scroll = _method(calls.scroll)
    delete = _method(calls.delete)
    delete_by_filter = _method(calls.delete_by_filter)
    embed = _method(calls.embed)
    mock = _method(calls.mock)
    job = _method(calls.job)
    cancel = _method(calls.cancel)
    dead_jobs = _method(calls.dead_jobs)
    replay = _method(calls.replay)
