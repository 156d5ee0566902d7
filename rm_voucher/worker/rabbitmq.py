"""RabbitMQ: quorum queues, confirmed messages, and a queue for each length of delay."""

from __future__ import annotations

import math
from typing import Any

from yarl import URL

from rm_voucher.extras import extra
from rm_voucher.worker.broker import ATTEMPT_HEADER, QueueNames
from rm_voucher.worker.faststream import FastStreamBroker, as_sent, log
from rm_voucher.worker.settings import WorkerSettings

with extra("worker", __name__):
    from aio_pika import RobustConnection
    from aio_pika.exceptions import ChannelPreconditionFailed
    from faststream import AckPolicy
    from faststream.message import StreamMessage
    from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue
    from faststream.rabbit.schemas.queue import QuorumQueueArgs

_HEARTBEAT_S = 6  # aiormq takes a link for dead after three of them, and three seconds
_RECONNECT_S = 1.0


def _queue(name: str, dead_letters_to: str | None = None) -> RabbitQueue:
    arguments: QuorumQueueArgs = {}
    if dead_letters_to is not None:
        arguments = {
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead_letters_to,
            "x-dead-letter-strategy": "at-least-once",  # by default a dead letter can be lost
            "x-overflow": "reject-publish",  # which that asks for
        }
    return RabbitQueue(name, QueueType.QUORUM, durable=True, arguments=arguments)


class RabbitMQ(FastStreamBroker):
    """Requests, vouchers and dead letters are quorum queues of the default exchange.

    A message that comes back later waits in a queue whose name has the delay, rounded up to a power
    of two: RabbitMQ looks at the expiry of a queue's first message only, so a message waits at
    most twice as long as it should. A message that ends its worker twenty times is dead-lettered
    by RabbitMQ itself, without a reason.
    """

    def __init__(self, url: str, names: QueueNames, settings: WorkerSettings) -> None:
        super().__init__(names)
        at = URL(url)
        if "heartbeat" not in at.query:  # without one it is 60
            at = at.update_query(heartbeat=_HEARTBEAT_S)
        # A message that no queue takes must be an error, or it would count as handed on.
        channel = Channel(on_return_raises=True)
        self.broker: Any = RabbitBroker(
            str(at),
            default_channel=channel,
            reconnect_interval=_RECONNECT_S,
            on_close=[self.tell_away],
            on_reconnected=[self.tell_back],
            logger=None,
        )
        self._connection: RobustConnection | None = None
        self.broker._connection_kwargs["connection_class"] = self._connect  # noqa: SLF001 - see there
        self._requests = _queue(names.requests, names.parked)
        self._requests.arguments["x-delivery-limit"] = 20
        subscriber = self.broker.subscriber(
            self._requests,
            channel=Channel(prefetch_count=settings.prefetch),
            ack_policy=AckPolicy.MANUAL,
            decoder=as_sent,
        )
        subscriber(self.handle)

    @property
    def is_connected(self) -> bool:
        """See `Broker.is_connected`."""
        return self._connection is not None and self._connection.connected.is_set()

    async def close(self) -> None:
        """See `Broker.close`."""
        await super().close()
        if self._connection is not None:
            await self._connection.close()

    async def publish(self, queue: str, body: bytes, headers: dict[str, str]) -> None:
        """See `FastStreamBroker.publish`."""
        await self.broker.publish(body, queue, persist=True, headers=headers)

    async def defer(self, message: StreamMessage[Any], attempt: int, delay_s: float) -> bool:
        """See `FastStreamBroker.defer`."""
        step_s = 2 ** max(0, math.ceil(math.log2(delay_s)))
        queue = _queue(f"{self.names.later}.{step_s}s", self.names.requests)
        await self.broker.declare_queue(queue)
        await self.broker.publish(
            message.body,
            queue,
            persist=True,
            expiration=delay_s,
            headers={ATTEMPT_HEADER: str(attempt + 1)},
        )
        return True

    async def backlog(self) -> int | None:
        """See `Broker.backlog`."""
        queue = await self.broker.declare_queue(self._requests)
        return int((await queue.declare()).message_count or 0)

    async def _prepare(self) -> None:
        await self.broker.connect()
        for queue in (_queue(self.names.parked), _queue(self.names.vouchers), self._requests):
            await self._make(queue)

    async def _make(self, queue: RabbitQueue) -> None:
        """Make a queue; one that is there with other arguments is used as it is."""
        assert self._connection is not None  # noqa: S101 - for the type checker
        channel = await self._connection.channel()  # a refusal closes it
        try:
            await channel.declare_queue(
                queue.name, durable=queue.durable, arguments=queue.arguments, robust=False
            )
        except ChannelPreconditionFailed as exc:
            queue.declare = False
            log.warning("a queue is used as it is, with other settings: %s", exc)
        finally:
            await channel.close()

    def _connect(self, *arguments: Any, **options: Any) -> RobustConnection:
        """Make a connection, and keep it.

        FastStream forgets one that fails when its first channel is opened. That one connects again
        and again, whoever cancels it, so that the process would never end.
        """
        self._connection = RobustConnection(*arguments, **options)
        return self._connection
