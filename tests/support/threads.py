"""A server of a test's in a thread with an event loop of its own, beside a command in this one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

from support.command import PATIENCE_S

T = TypeVar("T")


@contextmanager
def in_thread(make: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """Enter what ``make`` returns in a new thread, and leave it at the end."""
    ready: Future[tuple[T, Callable[[], object]]] = Future()

    async def run() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        async with make() as made:
            ready.set_result((made, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as exc:
            if ready.done():
                raise
            ready.set_exception(exc)

    thread = threading.Thread(target=main)
    thread.start()
    made, end = ready.result(PATIENCE_S)
    try:
        yield made
    finally:
        end()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
