"""The contract of `Broker`: each implementation keeps it, the three on real servers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable

import attrs
import pytest
from support.brokers import KINDS, Queues, queues_of
from support.command import PATIENCE_S

from rm_voucher.worker import Broker, Delivery, WorkerSettings
from rm_voucher.worker.dispositions import Disposition, HandOn, Later, Leave, Park

SETTINGS = WorkerSettings(prefetch=8, attempt_s=0.5, first_delay_s=0.1)


@attrs.define
class Handler:
    """Handles as a test says, and keeps what it was given."""

    answer: Callable[[Delivery], Disposition]
    deliveries: list[Delivery] = attrs.field(factory=list)
    news: asyncio.Condition = attrs.field(factory=asyncio.Condition)

    async def __call__(self, delivery: Delivery) -> Disposition:
        async with self.news:
            self.deliveries.append(delivery)
            self.news.notify_all()
        return self.answer(delivery)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self.news:
            await self.news.wait_for(lambda: len(self.deliveries) >= count)


async def until_none_is_left(broker: Broker) -> None:
    """Wait until the broker has no request that nobody has taken."""
    async with asyncio.timeout(PATIENCE_S):
        while await broker.backlog():
            await asyncio.sleep(0.02)


@pytest.fixture(params=KINDS)
async def queues(request: pytest.FixtureRequest) -> AsyncIterator[Queues]:
    async with queues_of(request.param) as queues:
        yield queues


@pytest.fixture
async def ready(queues: Queues) -> Queues:
    """The queues, which a broker has made."""
    broker = queues.broker(SETTINGS)
    await broker.start(Handler(lambda _: Leave()))
    await broker.pause()
    await broker.close()
    return queues


async def test_each_message_is_handled_and_handed_on(ready: Queues) -> None:
    """What was published before the broker started, too; each once, as it was sent."""
    bodies = [b'{"request_id": "%d"}' % number for number in range(20)]
    await ready.publish(*bodies)
    broker = ready.broker(SETTINGS)
    handler = Handler(lambda delivery: HandOn(delivery.body + b"!"))
    await broker.start(handler)
    assert broker.is_connected
    await handler.until(len(bodies))
    await until_none_is_left(broker)
    await broker.pause()
    await broker.close()
    assert Counter(handler.deliveries) == Counter(Delivery(body) for body in bodies)
    assert Counter(await ready.vouchers()) == Counter(body + b"!" for body in bodies)
    assert await ready.parked() == []


async def test_what_comes_back_later_counts_its_deliveries(ready: Queues) -> None:
    """Each message comes back with its body, as often as it must, and is then handed on."""
    await ready.publish(b'{"n": 1}', '{"n": "\u00e9"}'.encode())
    broker = ready.broker(SETTINGS)
    handler = Handler(
        lambda each: HandOn(each.body) if each.attempt == 3 else Later(0.05, "not yet")
    )
    await broker.start(handler)
    await handler.until(6)
    await broker.pause()
    await broker.close()
    attempts = Counter((each.body, each.attempt) for each in handler.deliveries)
    assert attempts == Counter(
        (body, attempt)
        for body in (b'{"n": 1}', '{"n": "\u00e9"}'.encode())
        for attempt in (1, 2, 3)
    )
    assert len(await ready.vouchers()) == 2


async def test_a_short_delay_is_not_kept_waiting_by_a_long_one(ready: Queues) -> None:
    """A message that comes back soon does not wait for one that comes back in an hour."""
    await ready.publish(b"long", b"short")

    def answer(delivery: Delivery) -> Disposition:
        if delivery.attempt == 2:
            return HandOn(delivery.body)
        return Later(900.0 if delivery.body == b"long" else 0.05, "not yet")

    broker = ready.broker(SETTINGS)
    handler = Handler(answer)
    await broker.start(handler)
    await handler.until(3)
    await broker.pause()
    await broker.close()
    assert [each.body for each in handler.deliveries if each.attempt == 2] == [b"short"]


async def test_what_is_parked_keeps_its_body_and_the_reason(ready: Queues) -> None:
    """Also a body that is no text, and a reason without an end."""
    await ready.publish(b"\xff\x00", b"{")
    broker = ready.broker(SETTINGS)
    handler = Handler(lambda _: Park("no request" + 2000 * "!"))
    await broker.start(handler)
    await handler.until(2)
    await until_none_is_left(broker)
    await broker.pause()
    await broker.close()
    parked = await ready.parked()
    assert sorted(body for body, _ in parked) == [b"{", b"\xff\x00"]
    assert all(reason.startswith("no request!") for _, reason in parked)
    assert await ready.vouchers() == []


async def test_what_a_worker_leaves_another_one_gets(ready: Queues) -> None:
    """A message that is left, or that a worker never acknowledged, is delivered again."""
    await ready.publish(b"a")
    first = ready.broker(SETTINGS)
    leaving = Handler(lambda _: Leave())
    await first.start(leaving)
    await leaving.until(1)
    await first.pause()
    await first.close()
    second = ready.broker(SETTINGS)
    handler = Handler(lambda delivery: HandOn(delivery.body))
    await second.start(handler)
    await handler.until(1)
    await until_none_is_left(second)
    await second.pause()
    await second.close()
    assert [each.body for each in handler.deliveries] == [b"a"]
    assert await ready.vouchers() == [b"a"]
