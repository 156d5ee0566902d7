"""What a request that gets nothing now is told."""

import asyncio

import pytest
from support.voucher_shop import Shop

from rm_voucher import ConnectError
from rm_voucher.ledger import Ledger, RequestState
from rm_voucher.ledger.memory import MemoryLedgerStore
from rm_voucher.ledger.rules.commands import Pending
from rm_voucher.ledger.rules.records import OPEN
from rm_voucher.ledger.rules.transitions import ask
from rm_voucher.ledger.sender import pending_error
from rm_voucher.service.client import issue_call


def test_pending_error_names_an_attempt_only_if_there_is_one():
    """A request that waits and claims no attempt has an error without one."""
    assert "(attempt" not in str(pending_error("B", Pending(RequestState.WAITING, None)))
    assert "(attempt a1)" in str(pending_error("B", Pending(RequestState.WAITING, "a1")))


class SlowStore(MemoryLedgerStore):
    """Takes its time, from when it is told, to say that a request has claimed an attempt."""

    def __init__(self):
        super().__init__()
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def commit(self, transition, item):
        result = await super().commit(transition, item)
        if transition is ask:
            self.asked.set()
            await self.answers.wait()
        return result


async def test_close_before_a_call_is_sent_gives_it_up(credentials, time):
    """A request that was started when the ledger began to close is not sent, and is as before."""
    shop, store = Shop(credentials, time), SlowStore()
    async with shop.client() as client:
        async with Ledger(store, **shop.settings) as ledger:
            late = asyncio.create_task(ledger.issue(client, "B", "late"))
            await store.asked.wait()
            asyncio.get_running_loop().call_soon(store.answers.set)
        with pytest.raises(ConnectError, match="being closed"):
            await late
        assert shop.emulator.requests["issue"] == 0
        async with Ledger(MemoryLedgerStore(store.tables), **shop.settings) as ledger:
            assert (await ledger.counts()).waiting == 1
            assert await ledger.attempts(states=list(OPEN)) == []
            assert (await ledger.issue(client, "B", "late")).code


async def test_abandoned_call_starts_no_attempt(credentials, time):
    """One that a run gave up while its request was looked up: nothing is written, nothing sent."""
    shop = Shop(credentials, time)
    async with (
        shop.client() as client,
        Ledger(MemoryLedgerStore(), **shop.settings) as ledger,
    ):
        await ledger.prepare(client, "B")
        call = issue_call(client.caller, "B")
        call.abandon()
        with pytest.raises(ConnectError, match="given up before it was sent"):
            await ledger.sender.start(client, call, "", "r1")
        assert shop.emulator.requests["issue"] == 0
        assert await ledger.attempts(states=list(OPEN)) == []
