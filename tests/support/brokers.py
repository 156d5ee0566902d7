"""The brokers that a worker can use, as tests reach them: their queues, and a skip without one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import nats
import pytest
import redis.asyncio
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
    async def take(self, queue: str) -> tuple[bytes, dict[str, Any]] | None:
        """Take a message from a queue, with its headers; None where there is none."""

    @abstractmethod
    async def clean(self) -> None: ...

    async def vouchers(self) -> list[bytes]:
        return [body for body, _ in await self._take_all(self.names.vouchers)]

    async def parked(self) -> list[tuple[bytes, str]]:
        taken = await self._take_all(self.names.parked)
        return [(body, headers.get(REASON_HEADER, "")) for body, headers in taken]

    async def _take_all(self, queue: str) -> list[tuple[bytes, dict[str, Any]]]:
        taken = []
        while (message := await self.take(queue)) is not None:
            taken.append(message)
        return taken


class MemoryQueues(Queues):
    async def open(self) -> None:
        self._broker = MemoryBroker()

    def broker(self, settings: WorkerSettings) -> Broker:
        return self._broker

    async def publish(self, *bodies: bytes) -> None:
        for body in bodies:
            self._broker.publish(body)

    async def take(self, queue: str) -> tuple[bytes, dict[str, Any]] | None:
        if queue == self.names.vouchers:
            return (self._broker.vouchers.pop(0), {}) if self._broker.vouchers else None
        if not self._broker.parked:
            return None
        body, reason = self._broker.parked.pop(0)
        return body, {REASON_HEADER: reason}

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

    async def take(self, queue: str) -> tuple[bytes, dict[str, Any]] | None:
        found = await self._channel.get_queue(queue, ensure=False)
        message = await found.get(fail=False)
        if message is None:
            return None
        await message.ack()  # without it, one that is on its way when the link breaks is lost
        return message.body, dict(message.headers)

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

    async def take(self, queue: str) -> tuple[bytes, dict[str, Any]] | None:
        name = queue.replace(".", "_")
        try:
            message = await self._stream.get_msg(name, seq=1, next=True, subject=queue)
        except NotFoundError:
            return None
        assert message.seq is not None
        await self._stream.delete_msg(name, message.seq)
        return message.data or b"", dict(message.headers or {})

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

    async def take(self, queue: str) -> tuple[bytes, dict[str, Any]] | None:
        from faststream.redis.parser import BinaryMessageFormatV1

        found: Any = await self._client.xrange(queue, count=1)
        if not found:
            return None
        ((number, fields),) = found
        await self._client.xdel(queue, number)
        return BinaryMessageFormatV1.parse(fields[b"__data__"])

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
