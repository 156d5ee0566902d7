"""The contract of `Broker`: each implementation keeps it, the three on real servers."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest
from aio_pika.exceptions import AMQPConnectionError
from redis.exceptions import RedisError, ResponseError
from support.brokers import KINDS, URLS, Queues, RabbitQueues, RedisQueues, queues_of
from support.command import PATIENCE_S
from support.modules import forget

from rm_voucher import ConfigurationError
from rm_voucher.worker import Broker, Delivery, QueueNames, WorkerSettings, open_broker
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


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker left comes back at once, and a broker that refuses is asked again at once."""
    monkeypatch.setattr("rm_voucher.worker.settings._MARGIN_S", 0.2)
    monkeypatch.setattr("rm_voucher.worker.faststream._BREATH_S", 0.0)


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


async def test_voucher_that_was_handed_on_already(ready: Queues) -> None:
    """Its message is acknowledged, and nothing is published."""
    await ready.publish(b"a")
    broker = ready.broker(SETTINGS)
    handler = Handler(lambda _: HandOn(None))
    await broker.start(handler)
    await handler.until(1)
    await until_none_is_left(broker)
    await broker.pause()
    await broker.close()
    assert await ready.vouchers() == []
    assert await ready.parked() == []
    await test_what_a_worker_leaves_another_one_gets(ready)  # and the first does not come again


@pytest.mark.parametrize("queues", list(URLS), indirect=True)
async def test_voucher_that_can_not_be_published_brings_its_message_again(
    ready: Queues, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not acknowledged, so it is delivered again; the log has no code."""
    await ready.publish(b"a")
    broker = ready.broker(SETTINGS)
    hand_on, failures = broker.hand_on, iter([ConnectionError("SECRET")])

    async def failing(message: bytes) -> None:
        for failure in failures:
            raise failure
        await hand_on(message)

    monkeypatch.setattr(broker, "hand_on", failing)
    handler = Handler(lambda delivery: HandOn(delivery.body + b" SECRET"))
    await broker.start(handler)
    await handler.until(2)
    await until_none_is_left(broker)
    await broker.pause()
    await broker.close()
    assert await ready.vouchers() == [b"a SECRET"]
    assert "the broker failed (ConnectionError)" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("queues", list(URLS), indirect=True)
async def test_end_in_order_is_no_loss(ready: Queues, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that is closed is not said to be away."""
    caplog.set_level(logging.WARNING, logger="rm_voucher")
    broker = ready.broker(SETTINGS)
    await broker.start(Handler(lambda _: Leave()))
    await broker.pause()
    await broker.close()
    assert caplog.messages == []


async def test_broker_that_never_started(queues: Queues) -> None:
    """It is not connected, and can be closed."""
    broker = queues.broker(SETTINGS)
    assert not broker.is_connected
    await broker.pause()
    await broker.close()


async def test_redis_that_fails_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due comes back when Redis does."""
    async with queues_of("redis") as queues:
        broker = queues.broker(SETTINGS)
        handler = Handler(
            lambda each: HandOn(each.body) if each.attempt == 2 else Later(0.05, "not yet")
        )
        await broker.start(handler)
        client: Any = broker._client  # type: ignore[attr-defined]  # the port has none
        evaluate, failed = client.eval, asyncio.Event()

        async def failing(script: str, keys: int, *rest: object) -> object:
            if keys == 2 and not failed.is_set():
                failed.set()
                raise RedisError("LOADING")
            return await evaluate(script, keys, *rest)

        monkeypatch.setattr(client, "eval", failing)
        await queues.publish(b"{}")
        await failed.wait()
        await handler.until(2)
        await broker.pause()
        await broker.close()


async def test_redis_key_of_another_kind() -> None:
    """A mistake is told, and not taken for a group that is there already."""
    async with queues_of("redis") as queues:
        assert isinstance(queues, RedisQueues)
        await queues._client.set(queues.names.requests, "no stream")
        broker = queues.broker(SETTINGS)
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await broker.start(Handler(lambda _: Leave()))
        await broker.close()


async def test_rabbitmq_that_goes_while_a_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes on connecting after the worker was closed: its process could never end."""
    async with queues_of("rabbitmq") as queues:
        broker: Any = queues.broker(SETTINGS)

        async def fail(*_: object) -> None:
            raise AMQPConnectionError("gone")

        monkeypatch.setattr(type(broker.broker.config.channel_manager), "get_channel", fail)
        with pytest.raises(AMQPConnectionError):
            await broker.start(Handler(lambda _: Leave()))
        assert broker._connection is not None
        await broker.close()
        assert broker._connection.is_closed
        assert not broker.is_connected


async def test_rabbitmq_queues_with_other_settings(caplog: pytest.LogCaptureFixture) -> None:
    """They are used as they are, and a line says which setting of which queue differs."""
    caplog.set_level(logging.WARNING, logger="rm_voucher")
    async with queues_of("rabbitmq") as queues:
        assert isinstance(queues, RabbitQueues)
        names = (queues.names.requests, queues.names.vouchers, queues.names.parked)
        for name in names:
            await queues._channel.declare_queue(name, durable=True)
        await queues.publish(b"a")
        broker = queues.broker(SETTINGS)
        handler = Handler(lambda delivery: HandOn(delivery.body))
        await broker.start(handler)
        await handler.until(1)
        await until_none_is_left(broker)
        await broker.pause()
        await broker.close()
        assert await queues.vouchers() == [b"a"]
    for name in names:
        assert f"for queue '{name}'" in caplog.text
    assert "is away" not in caplog.text  # it was closed, not lost


def test_rabbitmq_s_heartbeat_is_the_url_s_own_where_it_has_one() -> None:
    names = QueueNames()
    given: Any = open_broker("amqp://guest@127.0.0.1/?heartbeat=77", names=names)
    usual: Any = open_broker("amqp://guest@127.0.0.1/", names=names)
    assert "heartbeat=77" in str(given.broker.specification.url)
    assert "heartbeat=6" in str(usual.broker.specification.url)


async def test_link_that_is_lost_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """And that it is there again; but not of one that was closed."""
    broker: Any = open_broker("redis://127.0.0.1", names=QueueNames())
    await broker.tell_away(ConnectionError())
    await broker.tell_back()
    await broker.close()
    await broker.tell_away(ConnectionError())
    assert caplog.messages == ["the broker is away", "the broker is back"]


def test_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faststream.nats", None)
    forget(monkeypatch, "rm_voucher.worker.nats")
    with pytest.raises(ConfigurationError, match="extra 'worker'"):
        open_broker("nats://127.0.0.1")
