"""Redis streams: a consumer group, a sorted set of what comes back later, and claims."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import Annotated, Any

from rm_voucher.extras import extra
from rm_voucher.jsontext import write_json
from rm_voucher.runtime import ProcessName
from rm_voucher.worker.broker import ATTEMPT_HEADER, QueueNames
from rm_voucher.worker.faststream import FastStreamBroker, as_sent
from rm_voucher.worker.settings import WorkerSettings

with extra("worker", __name__):
    from faststream import AckPolicy, Context
    from faststream.message import StreamMessage
    from faststream.redis import RedisBroker, StreamSub
    from faststream.redis.message import RedisStreamMessage
    from redis.exceptions import RedisError, ResponseError

_log = logging.getLogger("rm_voucher.worker")
_GROUP = "rm-voucher"
_SILENCE_S = 5.0
_LOOK_S = 1.0
_ID_CHARS = 32
# Atomic, so that several workers that look at once move each message once. KEYS: the sorted set,
# the stream.
_MOVE_DUE = f"""
local now = redis.call('TIME')
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now[1], 'LIMIT', 0, 100)
for _, member in ipairs(due) do
  redis.call('XADD', KEYS[2], '*', '__data__', string.sub(member, {_ID_CHARS + 1}))
  redis.call('ZREM', KEYS[1], member)
end
return #due
"""
_ADD_LATER = """
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], now[1] + ARGV[1], ARGV[2])
"""


class RedisStreams(FastStreamBroker):
    """A stream for each queue, and a sorted set of the messages that come back later.

    A message that is done with is deleted. What a dead worker had is claimed by another one. How
    much of all that a crash of Redis loses is up to its settings: ``appendonly yes`` and
    ``appendfsync always`` lose nothing.
    """

    def __init__(self, url: str, names: QueueNames, settings: WorkerSettings) -> None:
        super().__init__(names)
        self.broker: Any = RedisBroker(
            url,
            socket_timeout=_SILENCE_S,
            socket_connect_timeout=_SILENCE_S,
            logger=None,  # type: ignore[arg-type]  # it takes None, as the others do
        )
        self._client: Any = None
        self._moving: asyncio.Task[None] | None = None
        consumer = str(ProcessName())
        new = StreamSub(names.requests, group=_GROUP, consumer=consumer, max_records=16)
        left = StreamSub(
            names.requests,
            group=_GROUP,
            consumer=consumer,
            min_idle_time=int(settings.redeliver_s * 1000),
            polling_interval=int(_LOOK_S * 1000),
        )
        for stream, workers in ((new, settings.prefetch), (left, 4)):
            subscriber = self.broker.subscriber(
                stream=stream,
                max_workers=workers,
                ack_policy=AckPolicy.MANUAL,
                decoder=as_sent,
            )
            subscriber(self.handle if stream is new else self.handle_left)

    @property
    def is_connected(self) -> bool:
        """See `Broker.is_connected`."""
        return self._client is not None and all(each.running for each in self.broker.subscribers)

    async def close(self) -> None:
        """See `Broker.close`."""
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.wait([self._moving])
        await super().close()

    async def publish(self, queue: str, body: bytes, headers: dict[str, str]) -> None:
        """See `FastStreamBroker.publish`."""
        await self.broker.publish(body, stream=queue, headers=headers)

    async def acknowledge(self, message: StreamMessage[Any]) -> None:
        """See `FastStreamBroker.acknowledge`."""
        assert isinstance(message, RedisStreamMessage)  # noqa: S101 - for the type checker
        await message.ack()
        await message.delete()

    async def defer(self, message: StreamMessage[Any], attempt: int, delay_s: float) -> bool:
        """See `FastStreamBroker.defer`."""
        envelope = {"data": message.body.decode(), "headers": {ATTEMPT_HEADER: str(attempt + 1)}}
        member = secrets.token_hex(_ID_CHARS // 2).encode() + write_json(envelope)
        await self._client.eval(_ADD_LATER, 1, self.names.later, delay_s, member)
        return True

    async def backlog(self) -> int | None:
        """See `Broker.backlog`."""
        groups = await self._client.xinfo_groups(self.names.requests)
        lag = {group["name"]: group.get("lag") for group in groups}.get(_GROUP.encode())
        return None if lag is None else int(lag)

    async def _prepare(self) -> None:
        self._client = await self.broker.connect()
        try:  # from the first message on; FastStream would begin with those to come
            await self._client.xgroup_create(self.names.requests, _GROUP, id="0", mkstream=True)
        except ResponseError as exc:
            if not str(exc).startswith("BUSYGROUP"):
                raise
        self._moving = asyncio.create_task(self._move(), name="rm-voucher worker, what is due")

    async def _move(self) -> None:
        """Bring back what is due, for as long as the worker lives."""
        while True:
            try:
                moved = await self._client.eval(_MOVE_DUE, 2, self.names.later, self.names.requests)
            except (RedisError, OSError) as exc:
                _log.warning("what is due comes back when Redis does (%s)", type(exc).__name__)
                moved = 0
            if not moved:
                await asyncio.sleep(_LOOK_S)

    async def handle_left(
        self, body: bytes, message: Annotated[RedisStreamMessage, Context("message")]
    ) -> None:
        """Handle what another worker took and left; how often that was counts."""
        with contextlib.suppress(RedisError, OSError):
            before = await message.get_delivery_count() - 1
            given = await self.attempt_of(message)
            message.headers[ATTEMPT_HEADER] = str(given + before)
        await self.process(message)
