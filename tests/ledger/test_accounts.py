"""A ledger belongs to one account: no other client comes to its rows, by whatever mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.doubles import FakeTime
from support.ledger_rows import BATCH, begin, bring, issue, start
from support.merchants import B, Merchant

from rm_voucher.exceptions import LedgerError, Retryable
from rm_voucher.ledger import Ledger, RequestState
from rm_voucher.ledger.rules.commands import Claimed

ANOTHERS = "belongs to another account"


@pytest.fixture
def one(time: FakeTime) -> Merchant:
    return Merchant("merchant-1", time)


@pytest.fixture
def two(time: FakeTime) -> Merchant:
    return Merchant("merchant-2", time)


async def test_first_client_has_it(
    make_ledger: Callable[..., Ledger], one: Merchant, two: Merchant
) -> None:
    """Another account's is refused before RM or the rows are asked, in another process too."""
    async with make_ledger(settle_s=30) as ledger:
        assert await ledger.account() is None
        code = await one.issue(ledger, "r1")
        assert await ledger.account() == one.client.account
    async with make_ledger(settle_s=30) as ledger:
        before = await ledger.counts()
        for work in (
            ledger.issue(two.client, B, "r1"),
            ledger.issue(two.client, B, "r2"),
            ledger.prepare(two.client, "C"),
            ledger.reconcile(two.client, B),
            ledger.finish(two.client, B),
            ledger.baseline(two.client, B),
        ):
            with pytest.raises(LedgerError, match=ANOTHERS) as caught:
                await work
            assert caught.value.retryable is Retryable.NEVER
        assert await one.issue(ledger, "r1") == code
        with pytest.raises(LedgerError, match=ANOTHERS):  # also after its own client
            await two.issue(ledger, "r1")
        assert await ledger.counts() == before
    assert sum(two.emulator.requests.values()) == 0


async def test_each_has_a_namespace(
    make_ledger: Callable[..., Ledger], one: Merchant, two: Merchant
) -> None:
    """With one batch key and one request id, each customer gets the own merchant's voucher."""
    for merchant in (one, two):
        async with make_ledger(merchant.client.account) as ledger:
            await merchant.issue(ledger, "r1")
            assert (await ledger.counts()).asked == 1
        assert list(merchant.emulator.issued(B)) == [merchant.received["r1"]]
    assert one.received == two.received  # the same code, of two vouchers


async def test_requests_may_come_first(make_ledger: Callable[..., Ledger], one: Merchant) -> None:
    """Where nothing was issued yet, whose it is is open, whatever the batches are called."""
    async with make_ledger() as ledger:
        assert await ledger.submit("MISSPELT", "r0") is RequestState.WAITING
        assert await ledger.submit(B, "r1") is RequestState.WAITING
        await ledger.finish(one.client, B)
        assert await one.issue(ledger, "r1") == one.emulator.issued(B)[0]


async def test_ledger_of_before(
    make_ledger: Callable[..., Ledger], one: Merchant, two: Merchant
) -> None:
    """It is nobody's: only who lists its batches may have it, or for whom a person speaks."""
    async with make_ledger() as ledger:  # as a version left it that knew no accounts
        await begin(ledger)
        code = await issue(ledger, "r1")
        with pytest.raises(LedgerError, match=rf"does not list its batch {BATCH}: use it with"):
            await two.issue(ledger, "r1")
        assert await ledger.account() is None
        one.emulator.add_batch("Coffee", key=BATCH, quantity=5)
        assert (await ledger.issue(one.client, BATCH, "r1")).code == code
        assert await ledger.account() == one.client.account


async def test_person_speaks(
    make_ledger: Callable[..., Ledger], one: Merchant, two: Merchant
) -> None:
    """The merchant has a new client id: what was issued before is not issued again."""
    async with make_ledger() as ledger:
        code = await one.issue(ledger, "r1")
    async with make_ledger() as ledger:
        with pytest.raises(LedgerError, match=ANOTHERS):
            await two.issue(ledger, "r1")
        await ledger.rebind(two.client)
        await ledger.rebind(two.client)
        assert (await ledger.issue(two.client, B, "r1")).code == code
        with pytest.raises(LedgerError, match=ANOTHERS):
            await one.issue(ledger, "r1")
    assert list(two.emulator.issued(B)) == []


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_account_has_one_namespace(
    make_ledger: Callable[..., Ledger], one: Merchant, two: Merchant
) -> None:
    """In another one its requests would be unknown, and issued again."""
    async with make_ledger() as ledger:
        await one.issue(ledger, "r1")
    async with make_ledger("again") as ledger:
        for work in (ledger.issue(one.client, B, "r1"), ledger.rebind(one.client)):
            with pytest.raises(LedgerError, match="has the namespace '' in this database"):
                await work
        await two.issue(ledger, "r1")
        with pytest.raises(LedgerError, match="has the namespace '' in this database"):
            await ledger.rebind(one.client)
    assert len(one.emulator.issued(B)) == 1


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_namespaces_wait_for_a_ledger_of_before(
    make_ledger: Callable[..., Ledger], one: Merchant, two: Merchant
) -> None:
    """Its merchant could begin anew in a namespace, and issue everything again."""
    async with make_ledger() as ledger:
        await begin(ledger, B)
        started = await start(ledger, "r1", B)
        assert isinstance(started, Claimed)
        await bring(ledger, "r1", started.attempt_id, "CODE", B)
    async with make_ledger(one.client.account) as ledger:
        with pytest.raises(LedgerError, match=r"whose it is is not known yet\. Use it once with"):
            await one.issue(ledger, "r1")
    async with make_ledger() as ledger:
        assert await one.issue(ledger, "r1") == "CODE"
    async with make_ledger(two.client.account) as ledger:
        await two.issue(ledger, "r1")
    assert len(two.emulator.issued(B)) == 1


async def test_two_at_once_are_one(postgres_ledger_url: str, one: Merchant, two: Merchant) -> None:
    """Two processes begin with one ledger and two accounts: one of them has it."""
    url = postgres_ledger_url
    async with Ledger.open(url, **one.settings) as left, Ledger.open(url, **two.settings) as right:
        answers = await asyncio.gather(
            left.issue(one.client, B, "r1"),
            right.issue(two.client, B, "r1"),
            return_exceptions=True,
        )
    assert [isinstance(each, LedgerError) for each in answers].count(True) == 1
    assert len([*one.emulator.issued(B), *two.emulator.issued(B)]) == 1
