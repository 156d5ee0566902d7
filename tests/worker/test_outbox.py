"""`Outbox`: a voucher's message and the application's rows commit together, once for each id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from support.doubles import FakeTime

from rm_voucher import IssuedVoucher, LedgerError
from rm_voucher.emulator import Emulator
from rm_voucher.exceptions import InvalidRequestError
from rm_voucher.ledger import Ledger
from rm_voucher.worker import MemoryBroker, Outbox, Worker
from rm_voucher.worker.messages import VoucherRequest, voucher_message

ADD_ORDER = text("INSERT INTO orders (id) VALUES (:id)")
FIND_ORDERS = text("SELECT id FROM orders ORDER BY id")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path')}/shop.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def outbox(url: str, time: FakeTime) -> AsyncIterator[Outbox]:
    """An outbox in the database of a shop, which has a table of its own."""
    async with Outbox(url, runtime=time.runtime) as outbox:
        async with outbox.once("the shop's own table", b"") as tx:
            assert tx is not None
            await tx.execute(text("CREATE TABLE orders (id TEXT)"))
        await outbox.relay(Published())
        yield outbox


class Published:
    """Takes messages as a broker does; it can fail."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.failing: Exception | None = None
        self.news = asyncio.Event()

    async def __call__(self, message: bytes) -> None:
        if self.failing is not None:
            self.news.set()
            raise self.failing
        self.messages.append(message)
        self.news.set()


async def orders(outbox: Outbox) -> list[str]:
    return await outbox._database.read(lambda c: [str(row.id) for row in c.execute(FIND_ORDERS)])


async def add_order(outbox: Outbox, name: str, message: bytes) -> bool:
    async with outbox.once(name, message) as tx:
        if tx is not None:
            await tx.execute(ADD_ORDER, {"id": name})
        return tx is not None


async def test_row_and_message_commit_together_once(outbox: Outbox) -> None:
    """The second time nothing is written, and the message goes out once."""
    published = Published()
    assert await add_order(outbox, "order 1", b"one")
    assert not await add_order(outbox, "order 1", b"two")
    assert await orders(outbox) == ["order 1"]
    assert await outbox.backlog() == 1
    assert await outbox.relay(published) == 1
    assert await outbox.relay(published) == 0
    assert published.messages == [b"one"]
    assert await outbox.backlog() == 0
    assert not await add_order(outbox, "order 1", b"three")
    assert await outbox.relay(published) == 0


async def test_block_that_raises_leaves_nothing(outbox: Outbox) -> None:
    """Neither row nor message; the next time both come."""
    with pytest.raises(ZeroDivisionError):
        async with outbox.once("order 1", b"one") as tx:
            assert tx is not None
            await tx.execute(ADD_ORDER, {"id": "order 1"})
            raise ZeroDivisionError
    assert await orders(outbox) == []
    assert await outbox.backlog() == 0
    assert await add_order(outbox, "order 1", b"one")


async def test_many_at_once_for_one_id(outbox: Outbox) -> None:
    """One of them writes, whoever it is."""
    found = await asyncio.gather(*(add_order(outbox, "order 1", b"%d" % n) for n in range(10)))
    assert sum(found) == 1
    assert await orders(outbox) == ["order 1"]
    assert await outbox.backlog() == 1


async def test_broker_that_fails_loses_no_message(outbox: Outbox) -> None:
    """What is not published stays, in order; what is, may come twice."""
    published = Published()
    for number in range(3):
        await add_order(outbox, f"order {number}", b"%d" % number)
    published.failing = ConnectionError("away")
    with pytest.raises(ConnectionError):
        await outbox.relay(published)
    assert await outbox.backlog() == 3
    published.failing = None
    assert await outbox.relay(published) == 3
    assert published.messages == [b"0", b"1", b"2"]


async def test_two_relays_at_once(url: str, outbox: Outbox) -> None:
    """Each message goes out once, whoever relays it."""
    published = Published()
    for number in range(120):
        await add_order(outbox, f"order {number}", b"%d" % number)
    async with Outbox(url) as other:
        while await outbox.backlog():
            await asyncio.gather(outbox.relay(published), other.relay(published))
    assert sorted(published.messages) == sorted(b"%d" % number for number in range(120))


async def test_namespaces_are_apart(url: str, outbox: Outbox) -> None:
    """Two merchants with the same id in one database."""
    published = Published()
    await add_order(outbox, "order 1", b"mine")
    async with Outbox(url, namespace="another") as other:
        assert await add_order(other, "order 1", b"theirs")
        assert await other.relay(published) == 1
    assert published.messages == [b"theirs"]
    assert await outbox.backlog() == 1


@pytest.mark.parametrize("failure", [ConnectionError("away"), LedgerError("away")])
async def test_run_relays_at_once_and_goes_on_after_a_failure(
    outbox: Outbox, failure: Exception
) -> None:
    """What this process adds is published without waiting for the next round."""
    published = Published()
    published.failing = failure
    await add_order(outbox, "order 0", b"0")
    running = asyncio.create_task(outbox.run(published))
    async with asyncio.timeout(10):
        await published.news.wait()
    published.failing = None
    await add_order(outbox, "order 1", b"1")
    async with asyncio.timeout(10):
        while len(published.messages) < 2:
            published.news.clear()
            await published.news.wait()
    assert published.messages == [b"0", b"1"]
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_id_that_can_be_none(outbox: Outbox) -> None:
    with pytest.raises(InvalidRequestError):
        async with outbox.once("", b""):
            pass


async def test_worker_hands_on_through_an_outbox(url: str, outbox: Outbox) -> None:
    """Copies of a message, and a hand-on that fails after writing: one row, one message an id."""
    emulator = Emulator(seed=3, batches={"TEA": 10})
    failures = iter([True, True])

    async def hand_on(request: VoucherRequest, voucher: IssuedVoucher) -> None:
        async with outbox.once(request.id, voucher_message(request, voucher)) as tx:
            if tx is not None:
                await tx.execute(ADD_ORDER, {"id": request.id})
                if next(failures, False):
                    raise ConnectionError("the shop fails")

    broker = MemoryBroker(
        [b'{"request_id": "order %d"}' % (number % 5) for number in range(15)],
        runtime=FakeTime().runtime,
    )
    async with emulator.client() as client, Ledger.open(url, sweeps=True) as ledger:
        worker = Worker(client, ledger, "TEA", hand_on=hand_on, runtime=FakeTime().runtime)
        async with worker.working(broker):
            await broker.wait_idle()
        published = Published()
        assert await outbox.relay(published) == 5
    assert await orders(outbox) == [f"order {number}" for number in range(5)]
    codes = emulator.issued("TEA")
    assert len(codes) == 5
    assert all(any(code in text.decode() for text in published.messages) for code in codes)
