"""What both clients do alike: the options of a request, and what its answer says."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, TypeVar

import httpx
import orjson

from plinth.gateway.client.calls import Call
from plinth.gateway.client.errors import not_understood, refusal, timed_out
from plinth.gateway.rest_api.headers import DEADLINE

Result = TypeVar("Result")
Token = str | Callable[[], str]
# So long the gateway gets beside its own deadline to say that it has passed.
ANSWER_S = 1.0


@dataclass(frozen=True)
class Exchange:
    """Requests with a token; one that is called gives the token of each request, as of a file that is renewed."""

    token: Token

    def options(self, call: Call[Any], deadline: float) -> dict[str, Any]:
        """The options of httpx for one try; raises where the call's time is over."""
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise timed_out()
        token = self.token if isinstance(self.token, str) else self.token()
        headers = {
            "authorization": f"Bearer {token}",
            # What is not waited for any more is not gone on with.
            DEADLINE: str(max(1, int(remaining_s * 1000))),
            **call.headers,
        }
        if call.body is not None:
            headers["content-type"] = "application/json"
        return {
            "method": call.method,
            "url": call.path,
            "content": call.body,
            "headers": headers,
            "timeout": remaining_s + ANSWER_S,
        }


def result(call: Call[Result], answer: httpx.Response) -> Result:
    """What an answer says; raises :class:`ApiError` for a refusal, and for what is no answer of a gateway."""
    if not answer.is_success:
        raise refusal(answer)
    try:
        return call.read(orjson.loads(answer.content) if answer.content else None)
    except (ValueError, KeyError, TypeError):
        raise not_understood(answer) from None


def describe(method: Callable[..., Any], build: Callable[..., Call[Any]]) -> None:
    """Give a method of a client what `help` and editors show: the documentation and arguments of its operation."""
    update_wrapper(method, build)
    signature = inspect.signature(build)
    client = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    answered = str(signature.return_annotation).removeprefix("Call[").removesuffix("]")
    vars(method)["__signature__"] = signature.replace(
        parameters=[client, *signature.parameters.values()], return_annotation=answered
    )
