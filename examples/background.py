"""An event loop in a thread, for programs that have none: WSGI servers, Celery's workers, scripts.

A client and a ledger keep connections and tasks on the loop that they were opened on, and want that
loop to go on.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

R = TypeVar("R")
T = TypeVar("T")


class Background(Generic[R]):
    """Runs work with what `opening` opens, at the first call: in each process after a fork."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[R]]) -> None:
        self._opening = opening
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[R], Coroutine[Any, Any, T]]) -> T:
        """Run work, and return its result or raise its error. Threads may call this at once."""
        with self._lock:
            if not self._lives():
                self._opened: Future[R] = Future()
                self._thread = threading.Thread(
                    target=asyncio.run, args=[self._live(self._opened)], daemon=True
                )
                self._thread.start()
            opened = self._opened
        return asyncio.run_coroutine_threadsafe(work(opened.result()), self._loop).result()

    def _lives(self) -> bool:
        if self._thread is None or not self._thread.is_alive():  # as in a child after a fork
            return False
        return not (self._opened.done() and self._opened.exception())

    def close(self) -> None:
        """Close what was opened, at the end of the process."""
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
            self._thread = None

    async def _live(self, opened: Future[R]) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with self._opening() as found:
                opened.set_result(found)
                await self._end.wait()
        except BaseException as exc:
            if opened.done():
                raise
            opened.set_exception(exc)  # this thread ends, and the next call begins another
