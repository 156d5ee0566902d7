"""A server with a limit and latency, and clients of it in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop
from support.answers import THROTTLED, ok
from support.doubles import NoSigner
from support.runtimes import with_runtime

from rm_voucher import Credentials, Request, Response, StaticToken, VoucherClient, bulk_issue
from rm_voucher.bulk.results import BulkResult
from rm_voucher.transport.memory import MemoryTransport

T = TypeVar("T")

BURST_S = 0.1


class LimitedServer:
    """Issues vouchers at up to so many a second, by a token bucket, and throttles the rest."""

    def __init__(
        self,
        clock: VirtualClock,
        *,
        per_s: float = 1e9,
        latency_s: float = 0.05,
        seed: int = 1,
        by_chance: float = 0.0,
    ) -> None:
        self.clock = clock
        self.per_s = per_s
        self.by_chance = by_chance
        """The share of the requests that it throttles whatever the rate."""
        self.fails: Callable[[Request], Awaitable[Response]] | None = None
        """What answers while it is down."""
        self.codes: list[str] = []
        self.log: list[tuple[float, str]] = []
        """When each request came, and what became of it."""
        self._latency_s = latency_s
        self._chance = random.Random(seed)
        self._left = self._burst
        self._at = clock.now

    @property
    def _burst(self) -> float:
        return max(1.0, self.per_s * BURST_S)

    def _takes_one(self) -> bool:
        if self.by_chance and self._chance.random() < self.by_chance:
            return False
        now = self.clock.now
        self._left = min(self._burst, self._left + (now - self._at) * self.per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def empty(self) -> None:
        """Let others use the limit up."""
        self._left, self._at = 0.0, self.clock.now

    async def __call__(self, request: Request) -> Response:
        await self._way()
        if self.fails is not None:
            self.log.append((self.clock.now, "failed"))
            return await self.fails(request)
        if not self._takes_one():
            self.log.append((self.clock.now, "throttled"))
            await self._way()
            return THROTTLED
        self.log.append((self.clock.now, "taken"))
        self.codes.append(f"C{len(self.codes)}")
        code = request.url.name if request.operation == "get" else self.codes[-1]
        await self._way()
        return ok({"item": {"code": code, "status": "ISSUED"}, "code": "SUCCESS"})

    async def _way(self) -> None:
        await asyncio.sleep(self._latency_s / 2 * (1 + self._chance.random() / 5))

    def count(self, kind: str, begin: float, end: float) -> int:
        """Return how many requests of that kind came between two instants."""
        return sum(1 for when, what in self.log if what == kind and begin <= when < end)

    def taken_per_s(self, begin: float, end: float) -> float:
        return self.count("taken", begin, end) / (end - begin)

    def throttled_share(self, begin: float, end: float) -> float:
        throttled = self.count("throttled", begin, end)
        return throttled / (throttled + self.count("taken", begin, end))


def in_virtual_time(main: Callable[[VirtualClock], Coroutine[Any, Any, T]]) -> T:
    clock = VirtualClock()
    return VirtualLoop(clock).run(lambda: main(clock))


def client_at(
    clock: VirtualClock, handler: Callable[[Request], Any], **options: Any
) -> VoucherClient:
    given: dict[str, Any] = {
        "transport": MemoryTransport(handler),
        "token_source": StaticToken("token"),
        "signer": NoSigner(),
        "clock": clock.wall,
        "monotonic": clock.monotonic,
        "random": random.Random(1).random,
        **options,
    }
    return VoucherClient(Credentials("id", "secret", b""), **with_runtime(given))


def rate_of(client: VoucherClient) -> float:
    """Return the rate that a client has, where it has one."""
    rate = client.flow.rate_per_s
    assert rate is not None
    return rate


def codes_of(results: Iterable[BulkResult]) -> list[str]:
    """Return the codes of results that all have one."""
    return [result.voucher.code for result in results if result.voucher is not None]


async def bulk_for(
    client: VoucherClient, clock: VirtualClock, seconds: float, *, concurrency: int
) -> list[BulkResult[int]]:
    """Issue to numbered recipients for so long; return their results in the order of numbers."""
    until = clock.now + seconds

    def recipients():
        number = 0
        while clock.now < until:
            yield number
            number += 1

    async with bulk_issue(client, "B", recipients(), concurrency=concurrency) as run:
        results = [result async for result in run]
    results.sort(key=lambda result: result.recipient)
    assert [result.recipient for result in results] == list(range(run.summary.asked))
    return results
