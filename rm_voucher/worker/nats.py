"""NATS JetStream: streams, a durable pull consumer, and messages given back with a delay."""

from __future__ import annotations

import asyncio
from typing import Any

from rm_voucher.extras import extra
from rm_voucher.worker.broker import QueueNames
from rm_voucher.worker.faststream import FastStreamBroker, as_sent
from rm_voucher.worker.settings import WorkerSettings

with extra("worker", __name__):
    from faststream import AckPolicy
    from faststream.message import StreamMessage
    from faststream.nats import ConsumerConfig, JStream, NatsBroker, PullSub
    from faststream.nats.message import NatsMessage
    from nats.js.errors import NotFoundError

_DURABLE = "rm-voucher"
_PUBLISH_S = 5.0
_FETCH_S = 1.0
_PING_S = 5
_CONNECT_S = 10.0  # the client itself tries without an end


class NatsJetStream(FastStreamBroker):
    """A stream for each queue, of the same name with ``_`` for dots, whose subject is the queue.

    Streams that are missing are made, others are left as they are. JetStream itself counts the
    deliveries of a message, and delivers it again after a delay, or when its worker is dead.
    """

    def __init__(self, url: str, names: QueueNames, settings: WorkerSettings) -> None:
        super().__init__(names)
        self._client: Any = None
        self.broker: Any = NatsBroker(
            url,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=_PING_S,
            disconnected_cb=self.tell_away,
            reconnected_cb=self.tell_back,
            logger=None,
        )
        subscriber = self.broker.subscriber(
            names.requests,
            stream=JStream(_stream(names.requests), declare=False),
            durable=_DURABLE,
            config=ConsumerConfig(
                ack_wait=settings.redeliver_s,
                max_deliver=-1,  # the worker counts, and parks with a reason
                max_ack_pending=-1,  # those that come back later are pending, too
            ),
            pull_sub=PullSub(batch_size=settings.prefetch, timeout=_FETCH_S),
            max_workers=settings.prefetch,
            ack_policy=AckPolicy.MANUAL,
            decoder=as_sent,
        )
        subscriber(self.handle)

    @property
    def is_connected(self) -> bool:
        """See `Broker.is_connected`."""
        return self._client is not None and self._client.is_connected

    async def publish(self, queue: str, body: bytes, headers: dict[str, str]) -> None:
        """See `FastStreamBroker.publish`."""
        await self.broker.publish(
            body, queue, headers=headers, stream=_stream(queue), timeout=_PUBLISH_S
        )

    async def attempt_of(self, message: StreamMessage[Any]) -> int:
        """See `FastStreamBroker.attempt_of`."""
        return int(message.raw_message.metadata.num_delivered)

    async def defer(self, message: StreamMessage[Any], attempt: int, delay_s: float) -> bool:
        """See `FastStreamBroker.defer`."""
        assert isinstance(message, NatsMessage)  # noqa: S101 - for the type checker
        await message.nack(delay=delay_s)
        return False

    async def backlog(self) -> int | None:
        """See `Broker.backlog`."""
        jet_stream = self._client.jetstream()
        found = await jet_stream.consumer_info(_stream(self.names.requests), _DURABLE)
        return int(found.num_pending or 0)

    async def _prepare(self) -> None:
        async with asyncio.timeout(_CONNECT_S):
            self._client = await self.broker.connect()
        jet_stream = self._client.jetstream()
        for queue in (self.names.requests, self.names.vouchers, self.names.parked):
            try:
                await jet_stream.stream_info(_stream(queue))
            except NotFoundError:
                await jet_stream.add_stream(name=_stream(queue), subjects=[queue])


def _stream(queue: str) -> str:
    return queue.replace(".", "_")
