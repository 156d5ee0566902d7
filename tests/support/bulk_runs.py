"""Handlers that issue vouchers to a bulk run, and what its results say."""

from __future__ import annotations

import asyncio
from typing import Any

from support.answers import ok

from rm_voucher import BulkResult, OutcomeUnknownError


class Issuer:
    """Issues distinct codes; keeps how many calls were in flight at most."""

    def __init__(self):
        self.issued = []
        self.in_flight = self.most = 0

    async def __call__(self, request):
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        self.issued.append(f"CODE{len(self.issued):06}")
        return ok({"item": {"code": self.issued[-1]}, "code": "SUCCESS"})


class Gate(Issuer):
    """Issues, but only once the gate is open."""

    def __init__(self):
        super().__init__()
        self.open = asyncio.Event()
        self.arrived = asyncio.Semaphore(0)

    async def __call__(self, request):
        self.arrived.release()
        await self.open.wait()
        return await super().__call__(request)


async def arrivals(gate, count):
    for _ in range(count):
        await gate.arrived.acquire()


async def some(iterable):
    for item in iterable:
        await asyncio.sleep(0)
        yield item


def code_of(result: BulkResult[Any]) -> str:
    assert result.voucher is not None
    return result.voucher.code


def doubt_of(result: BulkResult[Any]) -> OutcomeUnknownError:
    assert isinstance(result.error, OutcomeUnknownError)
    return result.error
