"""Ctrl-C: the first, the second and the third say what happens, and lose no code that arrived."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, cast

import attrs

from rm_voucher.cli.screen import say

INTERRUPTED = 130
"""The exit code of a command that was interrupted."""

Words = str | Callable[[], str]


@attrs.frozen(kw_only=True)
class Stopping:
    """What each Ctrl-C says and does. Words may be a function, for what only that moment knows.

    The first calls ``stop``, by default a cancellation of the command's task. It begins no new call
    and waits for those in flight. The second says what a third would lose, and changes nothing. The
    third, and each after it, calls ``end_now`` and cancels. SIGTERM and SIGHUP are a first one,
    however often they come: no person has read what the second says.
    """

    first: Words
    second: Words = ""
    third: Words = ""
    stop: Callable[[], None] | None = None
    end_now: Callable[[], None] | None = None


def run_until_interrupted(
    main: Coroutine[Any, Any, None], *, stopping: Stopping | None = None, say_once: str = ""
) -> None:
    """Run like `asyncio.run`, but SIGINT, SIGTERM and SIGHUP stop it as ``stopping`` says.

    Without that each cancels, the first with the words ``say_once``. With Python's own handler a
    second Ctrl-C would break off in the middle of a row.
    """

    async def interruptible() -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        steps = Steps(stopping or Stopping(first=say_once), task, is_short=stopping is None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                asyncio.get_running_loop().add_signal_handler(number, steps.take, number)
        await main

    asyncio.run(interruptible())


class Steps:
    """The presses of Ctrl-C of one command."""

    def __init__(
        self, stopping: Stopping, task: asyncio.Task[None], *, is_short: bool = False
    ) -> None:
        self._stopping = stopping
        self._task = task
        self._is_short = is_short  # the second ends it already
        self._taken = 0

    def take(self, number: signal.Signals) -> None:
        """Go one step on: see `Stopping`."""
        stopping = self._stopping
        if self._taken and number != signal.SIGINT and not self._is_short:
            return
        self._taken += 1
        if self._taken == 1:
            _say(stopping.first)
            (stopping.stop or self._task.cancel)()
        elif self._taken == 2 and not self._is_short:
            _say(stopping.second)
        else:
            if self._taken == 3:
                _say(stopping.third)
            if stopping.end_now is not None:
                stopping.end_now()
            self._task.cancel()


def _say(words: Words) -> None:
    if text := words if isinstance(words, str) else words():
        say(text)
