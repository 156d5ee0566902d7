"""The merchant's URL in this process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rm_voucher import Request, Response, Voucher
    from rm_voucher.emulator.merchant import Merchant

_CALLBACK_URL = "https://merchant.invalid/callback"


class CallbackReceiver:
    """The merchant's URL in this process: it keeps the deliveries, and answers them."""

    def __init__(self, emulator: Merchant) -> None:
        from rm_voucher.transport.memory import MemoryTransport

        self.requests: list[Request] = []
        """Every delivery with its headers, repeats included."""
        self._emulator = emulator
        self._statuses: list[int] = []
        self._came = threading.Condition()  # `rm_server` delivers from its thread
        emulator.callbacks.url = _CALLBACK_URL
        emulator.callbacks.transport = MemoryTransport(self._receive)

    @property
    def vouchers(self) -> list[Voucher]:
        """The voucher of every delivery, repeats included."""
        from rm_voucher.converters import structure
        from rm_voucher.jsontext import read_json
        from rm_voucher.models import Voucher

        return [structure(read_json(one.body)["item"], Voucher) for one in self.requests]

    def refuse_next(self, *, times: int = 1, status: int = 500) -> None:
        """Answer the next deliveries with a status other than 200, so that they are repeated."""
        self._statuses.extend([status] * times)

    def wait_for(self, count: int, *, timeout_s: float = 10.0) -> list[Voucher]:
        """Wait until ``count`` deliveries have come, and return the vouchers of all.

        It is for tests with `rm_server`, which delivers by itself. Raises `TimeoutError`.
        """
        with self._came:
            if not self._came.wait_for(lambda: len(self.requests) >= count, timeout_s):
                raise TimeoutError(f"{len(self.requests)} of {count} callbacks came")
        return self.vouchers

    async def deliver(self) -> int:
        """Make all deliveries that are due now; return the number of attempts."""
        return await self._emulator.callbacks.deliver()

    async def deliver_all(self) -> int:
        """Let time pass until nothing is left to deliver; return the number of attempts."""
        made = await self.deliver()
        while (due := self._emulator.callbacks.next_due()) is not None:
            clock = self._emulator.virtual_clock
            clock.advance(max(0.0, due - clock.now()))
            made += await self.deliver()
        return made

    def _receive(self, request: Request) -> Response:
        from rm_voucher import Response

        with self._came:
            self.requests.append(request)
            self._came.notify_all()
        return Response(status=self._statuses.pop(0) if self._statuses else 200)
