"""The brokers that a worker can use, as tests reach them: their queues, and a skip without one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, cast

import aio_pika
import nats
import pytest
import redis.asyncio
from aio_pika.abc import AbstractQueue
from nats.js.errors import NotFoundError
from support.postgres import listens
from yarl import URL

from rm_voucher.worker import Broker, MemoryBroker, QueueNames, WorkerSettings, open_broker
from rm_voucher.worker.broker import REASON_HEADER

URLS = {
    "rabbitmq": os.environ.get("RM_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/"),
    "nats": os.environ.get("RM_TEST_NATS_URL", "nats://127.0.0.1:4222"),
    "redis": os.environ.get("RM_TEST_REDIS_URL", "redis://127.0.0.1:6379/0"),
}
KINDS = ("memory", *URLS)


class Queues(ABC):
    """The queues of one test at one broker."""

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.names = QueueNames(
            requests=f"test-{uuid.uuid4().hex}.requests", vouchers=f"test-{uuid.uuid4().hex}"
        )

    def broker(self, settings: WorkerSettings) -> Broker:
        return open_broker(self.url, names=self.names, settings=settings)

    @abstractmethod
    async def open(self) -> None: ...

    async def reopen(self) -> None:  # noqa: B027 - most clients do it by themselves
        """Connect again, if the client does not do so by itself."""

    @abstractmethod
    async def publish(self, *bodies: bytes) -> None:
        """Publish requests; return when the broker has them all."""

    @abstractmethod
    def taking(self, queue: str) -> AsyncIterator[tuple[bytes, dict[str, Any]]]:
        """Yield the messages of a queue, with their headers.

        Each is taken off when it has been used: what a link breaks under comes a second time.
        """

    @abstractmethod
    async def clean(self) -> None: ...

    async def vouchers(self) -> list[bytes]:
        return [body async for body, _ in self.taking(self.names.vouchers)]

    async def parked(self) -> list[tuple[bytes, str]]:
        taken = self.taking(self.names.parked)
        return [(body, headers.get(REASON_HEADER, "")) async for body, headers in taken]


class MemoryQueues(Queues):
    async def open(self) -> None:
        self._broker = MemoryBroker()

    def broker(self, settings: WorkerSettings) -> Broker:
        return self._broker

    async def publish(self, *bodies: bytes) -> None:
        for body in bodies:
            self._broker.publish(body)

    async def taking(self, queue: str) -> AsyncIterator[tuple[bytes, dict[str, Any]]]:
        while queue == self.names.vouchers and self._broker.vouchers:
            yield self._broker.vouchers.pop(0), {}
        while queue == self.names.parked and self._broker.parked:
            body, reason = self._broker.parked.pop(0)
            yield body, {REASON_HEADER: reason}

    async def clean(self) -> None: ...


class RabbitQueues(Queues):
    async def open(self) -> None:
        self._connection = await aio_pika.connect(self.url)
        self._channel = await self._connection.channel(on_return_raises=True)

    async def reopen(self) -> None:
        await self._connection.close()
        await self.open()

    async def publish(self, *bodies: bytes) -> None:
        for body in bodies:
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await self._channel.default_exchange.publish(message, self.names.requests)

    async def declare(self, queue: str) -> AbstractQueue:
        """Make a queue that lasts."""
        return await self._channel.declare_queue(queue, durable=True)

    async def taking(self, queue: str) -> AsyncIterator[tuple[bytes, dict[str, Any]]]:
        found = await self._channel.get_queue(queue, ensure=False)
        while (message := await found.get(fail=False)) is not None:
            yield message.body, dict(message.headers)
            await message.ack()

    async def clean(self) -> None:
        later = [f"{self.names.later}.{2**power}s" for power in range(11)]
        names = (self.names.requests, self.names.vouchers, self.names.parked, *later)
        for name in names:
            await self._channel.queue_delete(name)
        await self._connection.close()


class NatsQueues(Queues):
    async def open(self) -> None:
        self._client = await nats.connect(self.url)
        self._stream = self._client.jetstream()

    async def publish(self, *bodies: bytes) -> None:
        for body in bodies:
            await self._stream.publish(self.names.requests, body)

    async def taking(self, queue: str) -> AsyncIterator[tuple[bytes, dict[str, Any]]]:
        name = queue.replace(".", "_")
        with contextlib.suppress(NotFoundError):  # there is none left
            while True:
                message = await self._stream.get_msg(name, seq=1, next=True, subject=queue)
                assert message.seq is not None
                yield message.data or b"", dict(message.headers or {})
                await self._stream.delete_msg(name, message.seq)

    async def clean(self) -> None:
        for name in (self.names.requests, self.names.vouchers, self.names.parked):
            with contextlib.suppress(NotFoundError):
                await self._stream.delete_stream(name.replace(".", "_"))
        await self._client.close()


class RedisQueues(Queues):
    async def open(self) -> None:
        self._client = redis.asyncio.Redis.from_url(self.url)

    async def publish(self, *bodies: bytes) -> None:
        for body in bodies:
            await self._client.xadd(self.names.requests, {"__data__": body})

    async def taking(self, queue: str) -> AsyncIterator[tuple[bytes, dict[str, Any]]]:
        from faststream.redis.parser import BinaryMessageFormatV1

        while found := await self._client.xrange(queue, count=1):
            ((number, fields),) = cast("Any", found)
            yield BinaryMessageFormatV1.parse(fields[b"__data__"])
            await self._client.xdel(queue, number)

    async def clean(self) -> None:
        names = (self.names.requests, self.names.vouchers, self.names.parked, self.names.later)
        await self._client.delete(*names)
        await self._client.aclose()


_QUEUES: dict[str, type[Queues]] = {
    "memory": MemoryQueues,
    "rabbitmq": RabbitQueues,
    "nats": NatsQueues,
    "redis": RedisQueues,
}


@contextlib.asynccontextmanager
async def queues_of(kind: str, url: str | None = None) -> AsyncIterator[Queues]:
    """Yield new queues at a broker; skip the test for the lack of one, but not in CI."""
    at = url or URLS.get(kind, "")
    queues = _QUEUES[kind](at)
    place = URL(at)
    if at and not listens(place.host or "127.0.0.1", place.port or 0):
        pytest.skip(f"no {kind} at {place.host}:{place.port}")
    try:
        async with asyncio.timeout(5):
            await queues.open()
    except Exception as exc:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"what answers at {place.host}:{place.port} can't be used: {exc!r}")
    try:
        yield queues
    finally:
        await queues.clean()
