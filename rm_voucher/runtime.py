"""Time and chance, what a test replaces; and the name that a process has for others."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import secrets
import time
from collections.abc import Awaitable, Callable

import attrs

from rm_voucher.arguments import check_callable


def is_cancelled() -> bool:
    """Return whether an `asyncio.CancelledError` is meant for the task that runs."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class ProcessName:
    """A random name, for what several processes share; a child that was forked has another one."""

    def __init__(self) -> None:
        self._name, self._pid = "", 0

    def __str__(self) -> str:
        if self._pid != os.getpid():
            self._name, self._pid = secrets.token_hex(8), os.getpid()
        return self._name


_random_hex = functools.partial(secrets.token_hex, 16)


@attrs.frozen(kw_only=True)
class Runtime:
    """The clocks, the waiting and the chance of a client, a ledger or a router.

    Replace what a test must not wait for: ``VoucherClient(…, runtime=Runtime(sleep=…))``.

    Attributes:
        clock: the time, in seconds since 1970.
        monotonic: the clock of deadlines and durations, in seconds.
        sleep: waits for so many seconds.
        random: gives numbers in [0, 1).
        make_nonce: gives the 32 characters of ``X-Nonce-Str``.
    """

    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random
    make_nonce: Callable[[], str] = _random_hex

    def __attrs_post_init__(self) -> None:
        for name in ("clock", "monotonic", "sleep", "random", "make_nonce"):
            check_callable(name, getattr(self, name))
