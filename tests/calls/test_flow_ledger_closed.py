"""The end of a ledger waits for what is in flight, and for no pause."""

import asyncio

import pytest
from simulation.clock import VirtualClock
from support.answers import ok
from support.limited_server import client_at, in_virtual_time

from rm_voucher import ConnectError, IssuedVoucher, VoucherClient
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.runtime import Runtime

BATCH = {"key": "B", "quantity": 100, "balanceQuantity": 100, "isStatic": False}


class Shop:
    """Asks for a wait of 100 s at its first issue, then takes 3 s for each."""

    def __init__(self) -> None:
        self.issues = 0

    async def __call__(self, request):
        if request.operation == "batches":
            return ok({"items": [BATCH], "code": "SUCCESS"})
        if request.operation == "vouchers":
            return ok({"items": [], "code": "SUCCESS"})
        self.issues += 1
        if self.issues == 1:
            return ok({"error": {"code": "TOO_MANY_REQUEST_PER_SECOND"}}, 429, retry_after="100")
        await asyncio.sleep(3)
        return ok({"item": {"code": f"C{self.issues}", "status": "ISSUED"}, "code": "SUCCESS"})


def ledger_at(clock: VirtualClock) -> Ledger:
    return Ledger.in_memory(runtime=Runtime(clock=clock.wall, monotonic=clock.monotonic))


async def throttled_and_waiting(
    client: VoucherClient, ledger: Ledger
) -> list[asyncio.Task[IssuedVoucher]]:
    """Return a call that waits to be sent again, and one that waits for its turn."""
    tasks = []
    for name in ("first", "second"):
        tasks.append(asyncio.create_task(ledger.issue(client, "B", name)))
        await asyncio.sleep(1)
    return tasks


def test_waiting_calls_are_given_up():
    """Closing a ledger while all calls are held back gives those up that wait, at once and
    provably unsent; nothing of them is left in doubt, and the next process issues to both."""

    async def main(clock: VirtualClock) -> None:
        shop = Shop()
        client = client_at(clock, shop)
        ledger = ledger_at(clock)
        async with ledger:
            tasks = await throttled_and_waiting(client, ledger)
            begin = clock.now
        assert clock.now - begin < 1
        for task in tasks:
            with pytest.raises(ConnectError, match="given up"):
                await task
        assert shop.issues == 1
        assert client.flow.waiting == 0
        async with ledger:
            for state in (AttemptState.SENDING, AttemptState.AMBIGUOUS):
                assert await ledger.attempts(states=[state]) == []
            for name in ("first", "second"):
                assert (await ledger.issue(client, "B", name)).code
        assert shop.issues == 3

    in_virtual_time(main)


def test_call_in_flight_is_waited_for():
    """A call that is out when the ledger is closed is waited for, and its voucher is kept."""

    async def main(clock: VirtualClock) -> None:
        shop = Shop()
        shop.issues = 1
        client = client_at(clock, shop)
        ledger = ledger_at(clock)
        async with ledger:
            task = asyncio.create_task(ledger.issue(client, "B", "first"))
            await asyncio.sleep(1)
        voucher = await task
        async with ledger:
            assert (await ledger.issue(client, "B", "first")).code == voucher.code
        assert shop.issues == 2

    in_virtual_time(main)
