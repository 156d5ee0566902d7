"""Commits the writes of many tasks in few transactions. It knows no database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

O = TypeVar("O")  # noqa: E741 - an operation
R = TypeVar("R")

_MAX_OPERATIONS = 512
_MANY = 64  # so many operations are worth a transaction, without waiting for more
_LONGEST_LINGER_S = 0.01


class UnavailableError(Exception):
    """The cause of an error that is no operation's fault: the database can't be used.

    Either it ``may_pass``, and was waited for in vain; or it does not, and nobody waited.
    """

    def __init__(self, kind: str = "", *, may_pass: bool = True) -> None:
        super().__init__(kind)
        self.may_pass = may_pass


class GroupCommit(Generic[O, R]):
    """Commits the writes of many tasks in few transactions.

    ``commit`` takes operations and returns their results when they are durable. If it fails for
    several, each is tried alone, so that one bad operation fails alone. If the database can't be
    used, all fail together: to wait for it once is enough. Where operations come in quickly, a
    transaction waits for more, as long as the last one took: most of its cost is not that of its
    operations.
    """

    def __init__(self, commit: Callable[[Sequence[O]], Awaitable[Sequence[R]]]) -> None:
        self._commit = commit
        self._waiting: list[tuple[O, asyncio.Future[R]]] = []
        self._wake = asyncio.Event()
        self._are_many = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="rm-voucher group commit")

    async def run(self, operation: O) -> R:
        """Return the operation's result when it is durable.

        Cancelling this does not take the operation back. It is cancelled itself when the writer
        was, as at the end of a loop. Raises `RuntimeError` in another loop than the writer's, where
        it would wait for ever.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._task.get_loop():
            raise RuntimeError("This was opened in another event loop: open one in each.")
        if self._task.done():
            raise asyncio.CancelledError
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((operation, future))
        self._wake.set()
        if len(self._waiting) >= _MANY:
            self._are_many.set()
        return await future

    async def close(self) -> None:
        """Commit the waiting operations, and end."""
        self._closing = True
        self._wake.set()
        self._are_many.set()
        await self._task

    async def _run(self) -> None:
        loop, took_s, crowded = asyncio.get_running_loop(), 0.0, False
        try:
            while self._waiting or not self._closing:
                self._wake.clear()
                if not self._waiting:
                    await self._wake.wait()
                    continue
                if crowded and len(self._waiting) < _MANY and not self._closing:
                    await self._linger(min(took_s, _LONGEST_LINGER_S))
                group = self._waiting[:_MAX_OPERATIONS]
                crowded, begun = len(group) > 1, loop.time()
                await self._commit_group(group)
                took_s = loop.time() - begun
                del self._waiting[: len(group)]
        finally:
            for _, future in self._waiting:  # none, unless this was cancelled
                future.cancel()

    async def _linger(self, seconds: float) -> None:
        self._are_many.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._are_many.wait()

    async def _commit_group(self, group: list[tuple[O, asyncio.Future[R]]]) -> None:
        try:
            results = await self._commit([operation for operation, _ in group])
        except Exception as exc:  # noqa: BLE001 - the waiting tasks get it
            if len(group) > 1 and not isinstance(exc.__cause__, UnavailableError):
                for one in group:
                    await self._commit_group([one])
                return
            for _, future in group:
                if not future.done():  # cancelled
                    future.set_exception(exc)
            return
        for (_, future), result in zip(group, results, strict=True):
            if not future.done():
                future.set_result(result)
