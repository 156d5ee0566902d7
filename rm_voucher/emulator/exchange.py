"""What came in and what became of it: the last exchanges, kept for who looks on."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import NamedTuple

import attrs

from rm_voucher.emulator.reply import Reply
from rm_voucher.transport.base import Request

_MOST = 1_000
_MOST_BYTES = 16 * 2**20


class Exchange(NamedTuple):  # which is made faster than a class of attrs
    """One request to a merchant's part of the server, and the server's reaction."""

    number: int
    """From 1 on, in the order of arrival."""
    at: float
    """The emulator's time, in unix seconds."""
    merchant: str
    operation: str
    """The client's name of it, empty for a path that there is not."""
    request: Request
    reply: Reply

    @property
    def size(self) -> int:
        """How many bytes its bodies take."""
        return len(self.request.body) + len(self.reply.response.body)


@attrs.define(eq=False)
class Journal:
    """The last thousand exchanges, or fewer if they are large; the oldest are forgotten.

    What is kept are the objects that there are anyway, so that keeping costs next to nothing.
    """

    number: int = 0
    """How many requests came so far: the number of the newest."""
    cause: int = 0
    """The number of the request that is worked for now, 0 when no request is."""
    observers: list[Callable[[Exchange], None]] = attrs.field(factory=list)
    """Each is told of every exchange, before its answer leaves. It must be quick."""
    _kept: deque[Exchange] = attrs.field(factory=deque, init=False)
    _bytes: int = attrs.field(default=0, init=False)

    def begin(self) -> int:
        """Count a request, which is the cause of what happens from now on."""
        self.number += 1
        self.cause = self.number
        return self.number

    @contextlib.contextmanager
    def because_of(self, number: int) -> Iterator[None]:
        """Let a request be the cause of what happens in the block."""
        self.cause, before = number, self.cause
        try:
            yield
        finally:
            self.cause = before

    def end(self, exchange: Exchange) -> None:
        """Keep an exchange, and tell the observers."""
        self.cause = 0
        kept = self._kept
        kept.append(exchange)
        self._bytes += exchange.size
        while len(kept) > _MOST or self._bytes > _MOST_BYTES:
            self._bytes -= kept.popleft().size
        for observer in self.observers:
            observer(exchange)

    def since(self, number: int) -> list[Exchange]:
        """Return the exchanges that are kept and came after one, the oldest first."""
        newest = takewhile(lambda exchange: exchange.number > number, reversed(self._kept))
        return list(newest)[::-1]

    def find(self, number: int) -> Exchange | None:
        """Return an exchange that is still kept."""
        return next((each for each in self._kept if each.number == number), None)

    def __iter__(self) -> Iterator[Exchange]:
        return iter(tuple(self._kept))

    def forget(self, merchant: str | None = None) -> None:
        """Forget the exchanges of one merchant, or all. Their numbers go on."""
        kept = [each for each in self._kept if each.merchant != merchant and merchant is not None]
        self._kept = deque(kept)
        self._bytes = sum(each.size for each in kept)
