"""The tasks of an open ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from rm_voucher.exceptions import LedgerError

T = TypeVar("T")

_log = logging.getLogger("rm_voucher.ledger")


class LedgerTasks:
    """Runs work that must not end with its caller, while the ledger is open."""

    def __init__(self) -> None:
        self.is_open = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it in a task of its own. Raises `LedgerError` if the ledger is not open."""
        if not self.is_open:
            work.close()
            raise LedgerError("The ledger is not open: use it with 'async with'.")
        task = asyncio.create_task(work, name="rm-voucher ledger")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self) -> None:
        """Wait until all have ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever waits for the task has its error; if nobody does, the ledger has the outcome.
            _log.debug("a task of the ledger ended with %s", type(error).__name__)
