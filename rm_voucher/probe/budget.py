"""The cost of a probe: stated before it begins, and never exceeded."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from rm_voucher.exceptions import ClosedError
from rm_voucher.text import counted
from rm_voucher.transport.base import Request, Response, Transport


@attrs.frozen(kw_only=True)
class Cost:
    """A number of requests, those for a token included, and of vouchers that are used up."""

    calls: int = 0
    vouchers: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(calls=self.calls + other.calls, vouchers=self.vouchers + other.vouchers)

    def __str__(self) -> str:
        """Return it in words."""
        return f"{counted(self.calls, 'call')} and {counted(self.vouchers, 'voucher')}"


class BudgetSpentError(ClosedError):
    """The stated cost or time is reached: the request was not sent."""


@attrs.define(eq=False, kw_only=True)
class Budget:
    """Counts what is spent. Raises `BudgetSpentError` instead of what would exceed the limit."""

    limit: Cost
    until: float
    """The end, by the monotonic clock."""
    monotonic: Callable[[], float]
    used: Cost = attrs.field(factory=Cost, init=False)

    def take(self, cost: Cost) -> None:
        """Count what a request takes, before it is sent."""
        used = self.used + cost
        if self.monotonic() >= self.until:
            raise BudgetSpentError("not sent: the time for the probe is over")
        if used.calls > self.limit.calls:
            raise BudgetSpentError("not sent: the calls that the probe may make are used up")
        if used.vouchers > self.limit.vouchers:
            raise BudgetSpentError("not sent: the vouchers that the probe may use are used up")
        self.used = used

    def take_voucher(self) -> None:
        """Count one voucher, before the request that may use it."""
        self.take(Cost(vouchers=1))

    def return_voucher(self) -> None:
        """Count one voucher less: its request was refused, so that nothing was done."""
        self.used += Cost(vouchers=-1)


@attrs.frozen
class MeteredTransport(Transport):
    """Sends what the budget allows. Every request of a probe passes here."""

    _inner: Transport
    _budget: Budget

    async def send(self, request: Request) -> Response:
        """Count the request, and a voucher if it issues one, then send it."""
        self._budget.take(Cost(calls=1, vouchers=int(request.operation == "issue")))
        return await self._inner.send(request)

    async def aclose(self) -> None:
        """Close the transport beneath."""
        await self._inner.aclose()
