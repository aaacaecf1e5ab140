"""A write that timed out, and the next of the same owner: the first never lands after the second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from plinth.gateway.errors import ErrorKind, GatewayError, unavailable
from plinth.gateway.write_order import WriteOrder


class Slow:
    """A store whose writes land when they are let."""

    def __init__(self) -> None:
        self.landed: list[str] = []
        self.sent: list[str] = []
        self.told = 0
        self.gate = asyncio.Event()

    def write(self, name: str, *, waits: bool = False, fails: bool = False) -> Callable[[float], Awaitable[None]]:
        async def write(_: float) -> None:
            self.sent.append(name)
            if waits:
                await self.gate.wait()
            if fails:
                raise unavailable()
            self.landed.append(name)

        return write

    async def tell(self) -> None:
        self.told += 1


async def timed_out(write: Awaitable[None]) -> None:
    with pytest.raises(GatewayError) as refused:
        await write
    assert refused.value.kind is ErrorKind.deadline_exceeded


@pytest.mark.parametrize("fails", [False, True], ids=["it lands", "it fails"])
def test_the_next_write_waits_for_one_that_timed_out(fails: bool) -> None:
    async def run() -> None:
        store, order = Slow(), WriteOrder()
        await timed_out(order.write(("c",), store.write("first", waits=True, fails=fails), 0.02, store.tell))
        second = asyncio.ensure_future(order.write(("c",), store.write("second"), 30, store.tell))
        await order.write(("another",), store.write("of another"), 30, store.tell)
        assert store.sent == ["first", "of another"]
        store.gate.set()
        await second
        assert store.landed == ["of another", *([] if fails else ["first"]), "second"]
        # The cache is told of what came late, and of it alone.
        assert store.told == 1

    asyncio.run(run())


def test_a_write_that_cannot_wait_so_long_is_never_sent() -> None:
    async def run() -> None:
        store, order = Slow(), WriteOrder()
        await timed_out(order.write(("c",), store.write("first", waits=True), 0.02, store.tell))
        await timed_out(order.write(("c",), store.write("second"), 0.02, store.tell))
        store.gate.set()
        await order.write(("c",), store.write("third"), 30, store.tell)
        assert store.landed == ["first", "third"]

    asyncio.run(run())


def test_a_caller_who_goes_leaves_the_write_in_its_order() -> None:
    async def run() -> None:
        store, order = Slow(), WriteOrder()
        first = asyncio.ensure_future(order.write(("c",), store.write("first", waits=True), 30, store.tell))
        await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.ensure_future(order.write(("c",), store.write("second"), 30, store.tell))
        await asyncio.sleep(0.01)
        assert store.sent == ["first"]
        store.gate.set()
        await second
        assert store.landed == ["first", "second"]

    asyncio.run(run())


def test_what_qdrant_refuses_is_told_to_its_caller() -> None:
    async def run() -> None:
        store, order = Slow(), WriteOrder()
        with pytest.raises(GatewayError) as refused:
            await order.write(("c",), store.write("first", fails=True), 30, store.tell)
        assert refused.value.kind is ErrorKind.unavailable
        await order.write(("c",), store.write("second"), 30, store.tell)

    asyncio.run(run())
