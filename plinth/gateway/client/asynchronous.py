"""The client for asyncio."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from tenacity import AsyncRetrying

from plinth.gateway.client import calls
from plinth.gateway.client.calls import Call
from plinth.gateway.client.errors import JobFailedError, transport_errors
from plinth.gateway.client.exchange import Exchange, Token, describe, result
from plinth.gateway.client.retries import RetryPolicy, polls
from plinth.gateway.jobs.model import Job, JobStatus
from plinth.system.http_client import async_client_for

Result = TypeVar("Result")
Given = ParamSpec("Given")


def _method(
    build: Callable[Given, Call[Result]],
) -> Callable[Concatenate[AsyncClient, Given], Coroutine[Any, Any, Result]]:
    """A method for an operation, with its arguments and its documentation."""

    async def method(client: AsyncClient, /, *args: Given.args, **named: Given.kwargs) -> Result:
        return await client.send(build(*args, **named))

    describe(method, build)
    return method


class AsyncClient:
    """The operations of the gateway, as the user that a token names.

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
        self._http = async_client_for(url, verify=verify)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End its connections."""
        await self._http.aclose()

    async def send(self, call: Call[Result], *, timeout_s: float | None = None) -> Result:
        """Ask for an operation, with a timeout of its own where one is given."""
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)

        async def attempt() -> Result:
            with transport_errors():
                answer = await self._http.request(**self._exchange.options(call, deadline))
            return result(call, answer)

        retrying = AsyncRetrying(**self._retries.options(repeatable=call.repeatable, deadline=deadline))
        answered: Result = await retrying(attempt)
        return answered

    async def wait(self, job_id: str, *, timeout_s: float = 60.0) -> Job:
        """The job once it is completed; raises :class:`JobFailedError`, or TimeoutError where it goes on."""
        for remaining_s, pause_s in polls(job_id, timeout_s):
            job = await self.send(calls.job(job_id), timeout_s=min(remaining_s, self._timeout_s))
            if job.status.ended:
                if job.status is not JobStatus.completed:
                    raise JobFailedError(job)
                return job
            await asyncio.sleep(pause_s)
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
