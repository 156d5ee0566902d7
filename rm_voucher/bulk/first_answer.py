"""Waits for the first answer of the server's: a run that never gets one ends soon.

An outage in the middle is worth an hour; a wrong URL, or no network, is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rm_voucher.calls.flow import Flow

# What connects when the time is up has some seconds more, by its own time-out.
_PATIENCE_S = 10.0
_LONGEST_S = 12.0
_LOOK_AGAIN_S = 0.1  # sooner than a call is sent again


class FirstAnswer:
    """Calls ``on_none`` when the server has answered nothing at all, ever, in the first seconds.

    As long as none has failed, the server may be slow, and it waits on; unless ``lacks_token``,
    because what buys tokens tries on by itself.
    """

    def __init__(
        self,
        flow: Flow,
        *,
        connect_s: float,
        lacks_token: Callable[[], bool],
        on_none: Callable[[], None],
    ) -> None:
        self._flow = flow
        self._longest_s = max(_LONGEST_S, connect_s + 1)
        self._lacks_token = lacks_token
        self._on_none = on_none
        self._begun_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Begin to wait, the first time."""
        if self._begun_at is None:
            loop = asyncio.get_running_loop()
            self._begun_at = loop.time()
            self._timer = loop.call_later(_PATIENCE_S, self._look)

    def end(self) -> None:
        """Wait no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        assert self._begun_at is not None  # noqa: S101 - for the type checker
        if self._flow.has_worked:
            return
        loop = asyncio.get_running_loop()
        is_over = loop.time() >= self._begun_at + self._longest_s
        if self._flow.has_failed or (is_over and self._lacks_token()):
            self._on_none()
        else:
            self._timer = loop.call_later(_LOOK_AGAIN_S, self._look)
