"""Cancel a task at each await: after no turn of the event loop, after one, after two, ...

A task makes one step a turn, so every point where it is suspended is met. What a test injects
names the places, and so proves that they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from rm_voucher import Request, Response, TokenSource


class Places:
    """Where a task waits: each place takes two turns, and knows whether it was left by a
    cancellation."""

    def __init__(self) -> None:
        self.visits: Counter[str] = Counter()
        self.cancelled: set[str] = set()

    @contextlib.asynccontextmanager
    async def at(self, name: str) -> AsyncIterator[None]:
        self.visits[name] += 1
        try:
            for _ in range(2):
                await asyncio.sleep(0)
            yield
        except asyncio.CancelledError:
            self.cancelled.add(f"{name} {self.visits[name]}")
            raise

    async def sleep(self, seconds: float) -> None:
        async with self.at("sleep"):
            pass


class SlowTokens(TokenSource):
    """Gives a token after some turns."""

    def __init__(self, places: Places) -> None:
        self.places = places

    async def token(self) -> str:
        async with self.places.at("token"):
            return "token"

    def refuse(self, token: str) -> bool:
        return False


def slow_server(
    places: Places, answer: Callable[[Request], Response]
) -> Callable[[Request], Awaitable[Response]]:
    """Answer after some turns; the place is called after the operation."""

    async def serve(request: Request) -> Response:
        async with places.at(request.operation):
            return answer(request)

    return serve


async def turn(times: int = 1) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def is_cancelled_after(turns: int, call: Awaitable[Any]) -> bool:
    """Cancel the call after so many turns; return False if it had ended by itself.

    A cancellation that does not come out of it fails the test.
    """
    task = asyncio.ensure_future(call)
    await turn(turns)
    if task.done():
        task.result()
        return False
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled(), "the cancellation was swallowed"
    return True


def each_turn(at_most: int = 500) -> Iterator[int]:
    """Count turns; whoever iterates stops when a call was not cancelled any more."""
    for turns in itertools.count():
        assert turns < at_most, "the call never ends"
        yield turns


def tasks_left() -> set[str]:
    """Return the names of the tasks beside the test's own, and those of a raw server."""
    return {
        task.get_name()
        for task in asyncio.all_tasks() - {asyncio.current_task()}
        if getattr(task.get_coro(), "__name__", "") != "serve"
    }
